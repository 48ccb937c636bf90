"""ONNX -> TensorRT plan."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mono_depth_ros.engines.engine import EngineError
from mono_depth_ros.engines.tensorrt_library import TRAITS, TensorRtLibrary

# Told the share that is done, 0 to 1, and the name of the phase.
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class BuiltPlan:
    """What a build gives.

    Attributes:
        plan: the serialised engine.
        timing_cache: measurements for later builds; empty where the library makes none.
    """

    plan: bytes
    timing_cache: bytes


class _Progress:
    """Turns TensorRT's nested phases into one share that only grows.

    A phase runs within one step of its parent, so it is worth that step's share of it.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._spans: dict[str, tuple[float, float]] = {}  # start and width of a step
        self._done = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        start, width = self._spans.get(parent, (0.0, 1.0)) if parent else (0.0, 1.0)
        self._spans[phase] = (start, width / max(steps, 1))
        self._tell(phase, start)

    def step(self, phase: str, step: int) -> None:
        start, width = self._spans[phase]
        # Where the next step starts; the phases within it start there, too.
        self._spans[phase] = (start + width, width)
        self._tell(phase, start + width)

    def _tell(self, phase: str, share: float) -> None:
        self._done = max(self._done, min(share, 1.0))
        self._report(self._done, phase)


def _monitor(trt: Any, report: Report) -> Any:
    progress = _Progress(report)

    class Monitor(trt.IProgressMonitor):
        """Hands TensorRT's progress on, and keeps what ends the build."""

        def __init__(self) -> None:
            super().__init__()
            self.interrupted: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._call(progress.start, phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._call(progress.step, phase_name, step)
            return self.interrupted is None

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends with its last step."""

        def _call(self, function: Callable[..., None], *arguments: Any) -> None:
            try:
                function(*arguments)
            except BaseException as error:  # Ctrl-C, too, arrives here
                self.interrupted = error

    return Monitor()


@contextmanager
def _signals_end(monitor: Any) -> Iterator[None]:
    """Has Ctrl-C and SIGTERM end a build at its next step.

    Python runs a handler when TensorRT next calls the monitor, and TensorRT swallows what the
    handler raises there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: object) -> None:
        monitor.interrupted = KeyboardInterrupt()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def build_plan(
    library: TensorRtLibrary,
    onnx: bytes,
    source: str,
    report: Report,
    target: str | None = None,
    timing_cache: bytes = b"",
) -> BuiltPlan:
    """Compiles a network; takes seconds with TensorRT-RTX, and minutes on a Jetson.

    Args:
        onnx: serialised model, typed as it shall run: nothing is made smaller in here.
        source: the model's file, for messages.
        report: told of progress, from the calling thread; what it raises ends the build.
        target: compute capability to build for, as `sm86`; None builds for the GPU at hand.
        timing_cache: of an earlier build.

    Raises:
        EngineError: the network has an operator that TensorRT does not know, the GPU's memory does
            not suffice, or this library does not build for the target.
    """
    trt = library.trt
    try:
        builder = trt.Builder(library.log)
    except TypeError:  # what its constructors raise when they fail
        raise library.failure("cannot start a builder") from None
    # Needed by TensorRT 10 and accepted by all.
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, library.log)
    if not parser.parse(onnx):
        raise _parse_error(library, parser, source)
    config = builder.create_builder_config()
    if library.traits.user_allocation:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if target is not None:
        capability = _capability(library, target)
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    cache = None
    if library.traits.timing_cache:
        cache = config.create_timing_cache(timing_cache)
        # One of another GPU is as good as none: the library looks at what it says of itself.
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
    monitor = _monitor(trt, report)
    config.progress_monitor = monitor
    library.log.errors.clear()
    with _signals_end(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.interrupted is not None:
        raise monitor.interrupted
    if plan is None:
        raise library.failure(f"cannot build {source}")
    library.log.errors.clear()
    return BuiltPlan(bytes(plan), b"" if cache is None else bytes(cache.serialize()))


def check_target(library: TensorRtLibrary, target: str) -> None:
    """Raises EngineError unless the library builds ahead of time for a compute capability."""
    _capability(library, target)


def _capability(library: TensorRtLibrary, target: str) -> Any:
    if not library.traits.ahead_of_time:
        raise EngineError(
            f"{library.title} builds for the GPU at hand only; build on the machine with the"
            f" {target}, or {TRAITS['tensorrt_rtx'].install}"
        )
    known = library.trt.ComputeCapability.__members__
    names = [name.lower() for name in known if name.startswith("SM")]
    if target.lower() not in names:
        raise EngineError(f"{library.title} builds for {', '.join(names)}, not for {target}")
    return known[target.upper()]


def _parse_error(library: TensorRtLibrary, parser: Any, source: str) -> EngineError:
    library.log.errors.clear()
    if parser.num_errors == 0:
        return EngineError(f"{source}: {library.title} cannot read it, and does not say why")
    first = parser.get_error(0)
    text = " ".join(first.desc().split())[:300]
    return EngineError(
        f"{source}: {library.title} cannot run operator {first.node_operator() or 'unknown'}"
        f" (node {first.node_name() or 'unnamed'}): {text}"
    )
