"""An engine build in a process of its own, which cannot crash or starve the one that serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# The node serves meanwhile; a build that takes its processor time would be noticed.
NICENESS = 10
STOP_S = 5.0


class BackgroundBuild:
    """Runs `build_engine`, from now on.

    Args:
        model, precision, cache_dir: as of `build_engine`.
        camera_size: height and width of the camera's images.

    Attributes:
        stopped: whether `stop` ended it.
    """

    def __init__(
        self, model: Path, precision: str, cache_dir: Path, camera_size: tuple[int, int]
    ) -> None:
        height, width = camera_size
        command = [sys.executable, "-m", "mono_depth_ros.build_engine", str(model)]
        command += ["--precision", precision, "--cache-dir", str(cache_dir)]
        command += ["--camera", f"{width}x{height}", "--progress", "json"]
        self.stopped = False
        # A file, which never fills up and blocks the build, as a pipe that nobody reads would.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            errors="replace",
            # A Ctrl-C is meant for the node, which then stops the build.
            start_new_session=True,
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        # Where memory runs out, it is the build that ends and not what serves.
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("1000")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def follow(self, report: Callable[[float, str], None]) -> str:
        """Waits for the end.

        Args:
            report: told the share that is done, 0 to 1, and what is being done.

        Returns:
            Why there is no engine, in one line; empty if there is one.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                step = json.loads(line)
                share, phase = float(step["share"]), str(step["phase"])
            except (ValueError, KeyError, TypeError):
                continue  # the result; or a library that writes to stdout, too
            report(share, phase)
        status = self._process.wait()
        if status == 0:
            return ""
        if status < 0:
            return (
                f"the build was killed by signal {-status}; if memory is short, run build_engine"
                " while nothing else runs"
            )
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1].removeprefix("build_engine: ") if lines else f"exit status {status}"

    def stop(self) -> None:
        """Ends the build, from another thread than that which follows it; what is in the cache
        stays whole.
        """
        self.stopped = True
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
