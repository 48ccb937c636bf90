"""Where a Rerun recording goes: a file, a window, a browser, or a viewer on another machine."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote

import rerun as rr
import rerun.blueprint as rrb

from mono_depth_ros.rerun_recording import APPLICATION

# A viewer that takes longer than this for a message is busy. Rerun looks once a second whether
# there is a connection at all, and says so only to somebody who waits longer than that.
BUSY_S = 1.5
# What the process of the window buffers for others; the window itself has a limit of its own.
_WINDOW_BUFFER = "100MB"


class SinkError(ValueError):
    """There is nothing to look with, or no longer; the message names the remedy."""


class Sink:
    """A recording and its way out.

    Args:
        save: file to write; None opens a window, unless one of the next two is given.
        connect: URL of a viewer that is running.
        serve: port of a web viewer, which takes the data from the port after it.
        memory_limit: such as `1GB`: what the window or the server keeps.

    Attributes:
        stream: where to log.

    Raises:
        SinkError: it cannot be opened.
    """

    def __init__(
        self,
        save: Path | None = None,
        connect: str | None = None,
        serve: int | None = None,
        memory_limit: str = "1GB",
    ) -> None:
        self.stream = rr.RecordingStream(APPLICATION)
        what, remedy = "the viewer's window", "use --serve, --connect or --save"
        try:
            if save is not None:
                what, remedy = str(save), "choose another --save"
                self.stream.save(save)
            elif connect is not None:
                what, remedy = connect, "--connect rerun+http://HOST:9876/proxy"
                self.stream.connect_grpc(connect)
            elif serve is not None:
                what, remedy = f"ports {serve} and {serve + 1}", "choose another --serve PORT"
                self._serve(serve, memory_limit)
            else:
                self._open_window(memory_limit)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise SinkError(f"{what}: {reason}; {remedy}") from None

    def _open_window(self, memory_limit: str) -> None:
        screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
        if sys.platform == "linux" and not screen:
            # The viewer itself would only say so after this process has gone on.
            raise RuntimeError("there is no screen (DISPLAY is not set)")
        # Beside the interpreter, for a virtual environment that is not activated.
        viewer = Path(sys.executable).with_name("rerun")
        rr.spawn(
            executable_path=str(viewer) if viewer.is_file() else None,
            memory_limit=memory_limit,
            server_memory_limit=_WINDOW_BUFFER,
            hide_welcome_screen=True,
            recording=self.stream,
        )

    def _serve(self, port: int, memory_limit: str) -> None:
        for needed in (port, port + 1):
            # Rerun would only log that a port is taken.
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(("", needed))
        self.stream.serve_grpc(
            grpc_port=port + 1,
            server_memory_limit=memory_limit,
            # Pages of this web viewer, under whatever name the browser knows this machine by.
            cors_allow_origin=[f"http://*:{port}"],
        )
        rr.serve_web_viewer(web_port=port, open_browser=False)
        host = socket.gethostname()
        data = f"rerun+http://{host}:{port + 1}/proxy"
        print(f"open http://{host}:{port}/?url={quote(data, safe='')} in a browser,")
        print(f"or, on the machine with the screen, run: rerun {data}", flush=True)

    def send_layout(self, layout: rrb.Blueprint) -> None:
        """Arranges the viewer, whatever it showed before."""
        self.stream.send_blueprint(layout)

    def delivered(self) -> bool:
        """Whether all that was logged has left; waits a moment for it.

        Called after every message, it keeps messages from queueing for a slow viewer.

        Raises:
            SinkError: the viewer is gone.
        """
        began = time.monotonic()
        try:
            self.stream.flush(timeout_sec=BUSY_S)
        except RuntimeError as error:
            if time.monotonic() - began >= BUSY_S:
                return False
            reason = " ".join(str(error).split())
            raise SinkError(f"no viewer is there ({reason}); start one, and this again") from None
        return True

    def close(self) -> None:
        """Ends the recording; a file is complete only after this."""
        self.stream.disconnect()
