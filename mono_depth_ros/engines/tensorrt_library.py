"""The TensorRTs that are installed, and the table of where they differ.

TensorRT 10 and 11 are the module `tensorrt`; JetPack 6 has 10.3, the oldest that is meant.
TensorRT-RTX is the module `tensorrt_rtx`, and `tensorrt_rtx_bindings` where only its wheels are
installed. All have the named-tensor interface that the engine uses, and build strongly typed
networks: 11 builds no other, 10 has to be told.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mono_depth_ros.engines.engine import EngineError, UnavailableError


@dataclass(frozen=True)
class Traits:
    """Where one TensorRT is not like another.

    Attributes:
        modules: names that it may be imported by.
        oldest: version that has the interface.
        title: what people call it.
        install: how to get it.
        ahead_of_time: it builds for GPUs that are not there, on machines that have none.
        timing_cache: it measures kernels while it builds, which goes faster with the measurements
            of earlier builds.
        runtime_cache: it compiles kernels when a plan is loaded, and can keep them.
        user_allocation: its plans can be recorded into a CUDA graph only if they are built to
            allocate no memory themselves.
    """

    modules: tuple[str, ...]
    oldest: tuple[int, int]
    title: str
    install: str
    ahead_of_time: bool
    timing_cache: bool
    runtime_cache: bool
    user_allocation: bool


# In the order of preference: TensorRT measures kernels on the GPU at hand, RTX picks them by rule.
TRAITS = {
    "tensorrt": Traits(
        modules=("tensorrt",),
        oldest=(10, 3),
        title="TensorRT",
        install="it comes with JetPack; elsewhere pip install tensorrt",
        ahead_of_time=False,
        timing_cache=True,
        runtime_cache=False,
        user_allocation=False,
    ),
    "tensorrt_rtx": Traits(
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        oldest=(1, 4),
        title="TensorRT-RTX",
        install="pip install -r requirements/tensorrt.txt",
        ahead_of_time=True,
        timing_cache=False,
        runtime_cache=True,
        user_allocation=True,
    ),
}
KEPT_MESSAGES = 20


@dataclass(frozen=True)
class TensorRtLibrary:
    """One TensorRT that is installed.

    Attributes:
        name: key of `TRAITS`.
        trt: the imported module.
        version: its version.
        traits: where it differs from others.
        log: an `ILogger` whose `errors` are the last things that went wrong.
    """

    name: str
    trt: ModuleType
    version: str
    traits: Traits
    log: Any

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.traits.title} {self.version}"

    def failure(self, what: str) -> EngineError:
        """The error for a call of TensorRT that returned nothing, with what it logged about it."""
        errors = list(self.log.errors)
        self.log.errors.clear()
        text = " ".join(errors[0].split()) if errors else "it does not say why"
        if any("memory" in error.lower() for error in errors):
            text = f"out of memory; end other programs that use the GPU ({text})"
        return EngineError(f"{self.title} {what}: {text}")


def _import(traits: Traits) -> ModuleType:
    reasons = []
    for module in traits.modules:
        try:
            return importlib.import_module(module)
        except Exception as error:  # a library that does not load raises more than ImportError
            reasons.append(" ".join(str(error).split()) or type(error).__name__)
    raise UnavailableError(f"{traits.title} is not installed ({reasons[0]}); {traits.install}")


def _open(name: str) -> TensorRtLibrary:
    traits = TRAITS[name]
    trt = _import(traits)
    if tuple(map(int, trt.__version__.split(".")[:2])) < traits.oldest:
        oldest = ".".join(map(str, traits.oldest))
        found = f"{traits.title} {trt.__version__}"
        raise UnavailableError(f"{found} is older than {oldest}, which is needed; update it")

    class Log(trt.ILogger):  # type: ignore[name-defined]
        """Keeps errors for the message of the call that then fails."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: deque[str] = deque(maxlen=KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return TensorRtLibrary(name, trt, trt.__version__, traits, Log())


def libraries() -> list[TensorRtLibrary]:
    """The TensorRTs that are installed, the preferred one first.

    Raises:
        UnavailableError: there is none.
    """
    found, reasons = [], []
    for name in TRAITS:
        try:
            found.append(_open(name))
        except UnavailableError as error:
            reasons.append(str(error))
    if not found:
        raise UnavailableError("; ".join(reasons))
    return found
