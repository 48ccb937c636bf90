"""One network in one engine at one precision: times, memory and answers, in a process of its own.

A process of its own keeps memory, threads and crashes of the runtimes apart. `depth_bench` makes a
table of such rows.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines import Engine, EngineError, NotBuiltError, TensorSpec, open_engine
from mono_depth_ros.engines.cache import open_cache
from mono_depth_ros.engines.tensorrt_plans import build
from mono_depth_ros.latency import percentiles, time_calls
from mono_depth_ros.model import read_model

TORCH = "torch"
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """What a process measures.

    Attributes:
        model: ONNX file.
        engine: one of `ENGINES`, or `TORCH`.
        precision: one of `PRECISIONS`.
        cache_dir: for what the engine compiles.
        images: .npy file, NxHxWx3 uint8 RGB of the input size.
        repeat: calls that are timed; 0 stops after the first frame.
        checkpoint: for `TORCH`: the file that the model was exported from.
        answers: .npy file to write, Nxhxw float32 metres; None writes none.
    """

    model: str
    engine: str
    precision: str
    cache_dir: str
    images: str
    repeat: int = 0
    checkpoint: str | None = None
    answers: str | None = None


def _open_torch(job: Job, images: npt.NDArray[np.uint8]) -> Engine:
    """The checkpoint in PyTorch, at any size: these networks are convolutions throughout."""
    if job.checkpoint is None:
        raise EngineError(f"no checkpoint beside {job.model}; give it with --checkpoint")
    if job.precision != "float32":
        raise EngineError(f"precision {job.precision}: the torch engine runs float32 only")
    try:
        # Only where there is a checkout: robots have neither.
        module = importlib.import_module("training.torch_engine")
    except ImportError as error:
        raise EngineError(
            f"{error}; run it in a checkout, after pip install -r requirements/train.txt"
        ) from None
    engine: Engine = module.TorchEngine(Path(job.checkpoint))
    engine.input_spec = TensorSpec("image", (1, *images.shape[1:]), "uint8")
    return engine


def _open_runtime(job: Job, images: npt.NDArray[np.uint8]) -> Engine:
    """The engine, built where that is needed; the build includes its check."""
    open_job = partial(open_engine, job.model, job.engine, job.precision, job.cache_dir)
    try:
        return open_job()
    except NotBuiltError:
        cache = open_cache(job.cache_dir)
        build(read_model(job.model), job.precision, cache, list(images), lambda share, phase: None)
        return open_job()


def _memory_kb(field: str) -> int:
    """A figure of /proc/self/status: VmRSS, or VmHWM, its peak since this program started.

    Not getrusage, whose peak a child inherits from the process that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def measure(job: Job) -> dict[str, Any]:
    """Loads a network, answers, and times it; what follows the first frame only where `repeat` is
    not 0.

    Returns:
        description, of the engine; load_s; first_frame_s, from before the load to the first depth;
        memory_mb, how far the process grew; gpu_mb, None where the engine does not tell; ms_p50,
        ms_p95, ms_p99; frames_per_s; latencies_ms.

    Raises:
        EngineError, ValueError: the engine cannot run it.
    """
    images = np.load(job.images)
    before = _memory_kb("VmRSS")
    started = time.perf_counter()
    engine = (_open_torch if job.engine == TORCH else _open_runtime)(job, images)
    loaded = time.perf_counter()
    engine.infer(images[0])
    answered = time.perf_counter()
    row: dict[str, Any] = {
        "description": engine.describe(),
        "load_s": round(loaded - started, 4),
        "first_frame_s": round(answered - started, 4),
    }
    if job.repeat:
        times = time_calls(partial(engine.infer, images[0]), job.repeat)
        row |= percentiles(times)
        row["frames_per_s"] = round(1e3 / float(times.mean()), 2)
        row["latencies_ms"] = times.round(3).tolist()
    row["memory_mb"] = round((_memory_kb("VmHWM") - before) * 1024 / 1e6, 1)
    gpu_bytes = getattr(engine, "gpu_bytes", None)
    row["gpu_mb"] = None if gpu_bytes is None else round(gpu_bytes / 1e6, 1)
    if job.answers is not None:
        np.save(job.answers, np.stack([engine.infer(image).copy() for image in images]))
    return row


def run(job: Job, timeout_s: float) -> dict[str, Any]:
    """`measure` in a process of its own.

    Returns:
        What `measure` does, or, where it failed, crashed or took too long, `error`: one line.
    """
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "row.json", Path(folder) / "log"
        command = [sys.executable, "-m", __name__, json.dumps(asdict(job)), str(result)]
        try:
            with log.open("w") as file:
                status = subprocess.run(
                    command,
                    env={**os.environ, "PYTHONPATH": path},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_s,
                ).returncode
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {timeout_s:g} s; --timeout gives it longer"}
        if status == 0:
            row: dict[str, Any] = json.loads(result.read_text())
            return row
        if status < 0:
            return {"error": f"the process was ended by {signal.Signals(-status).name}"}
        # A defect that `main` does not expect ends in a traceback, and that in what happened.
        lines = log.read_text(errors="replace").strip().splitlines()
        return {"error": lines[-1] if lines else f"the process ended with status {status}"}


def bench_engine(job: Job, timeout_s: float) -> dict[str, Any]:
    """A row: first with an empty cache, then, in another process, as a robot starts afterwards.

    Returns:
        As `run`, where load_s and first_frame_s are of the first start, all else is of the second,
        and cached_s and cached_first_frame_s are the same times of the second; None where the
        engine cached nothing.
    """
    first = run(replace(job, repeat=0, answers=None), timeout_s)
    if "error" in first:
        return first
    # Locks, which are empty, do not count.
    cached = any(file.stat().st_size for file in Path(job.cache_dir).rglob("*") if file.is_file())
    second = run(job, timeout_s)
    if "error" in second:
        return second
    starts = ("load_s", "first_frame_s")
    again = {f"cached_{name.removeprefix('load_')}": second[name] for name in starts}
    return {
        **second,
        **{name: first[name] for name in starts},
        **(again if cached else dict.fromkeys(again)),
    }


def main(argv: list[str] | None = None) -> int:
    """The process: takes a `Job` as JSON and the file for the row; returns the exit status."""
    text, result = sys.argv[1:] if argv is None else argv
    try:
        row = measure(Job(**json.loads(text)))
    except (ValueError, RuntimeError, OSError) as error:
        row = {"error": " ".join(str(error).split())}
    Path(result).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
