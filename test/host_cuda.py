"""A stand-in for an NVIDIA GPU: the functions of `cuda.bindings.runtime` in host memory.

CI has no GPU, and most of what goes wrong with one goes wrong in the calls, not in the kernels: a
missing synchronise, memory that is freed while it is used, a thread that never named its device, a
graph that recorded what cannot be recorded. The stand-in keeps CUDA's rules for those calls, as
the CUDA Runtime API documentation gives them, and is stricter where CUDA only promises undefined
behaviour: work that is queued on a stream is done as late as CUDA may do it, when somebody waits
for it; new and freed memory holds NaN; what would corrupt memory raises `MisuseError`, and is kept
in `HostCuda.misuse` in case someone swallows it.

What it cannot show: speed, real kernels and their rounding, how much memory a network takes, that
two streams overlap, and whatever a real driver does that its documentation does not say.
"""

# The functions have the names that they have in CUDA.
# ruff: noqa: N802

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from types import ModuleType
from typing import Any, Concatenate, ParamSpec, cast

import numpy as np
import numpy.typing as npt
import pytest

# Types, constants and error codes are those of the real one; without it there is nothing to test.
real: Any = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")

Bytes = npt.NDArray[np.uint8]
Work = Callable[[], None]
Errors = real.cudaError_t

# No processor maps this address, so reading it as the host would crash at once.
DEVICE_BASE = 0x0DE7_1CE0_0000_0000
ALIGNMENT = 256
# As a float16 or float32, NaN.
POISON = 0xFF


class MisuseError(AssertionError):
    """A call that would corrupt memory or be undefined on a GPU."""


class _CudaError(Exception):
    """A call that fails in the way that CUDA says it fails."""

    def __init__(self, code: Any) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class _Stream:
    queue: list[Work] = field(default_factory=list)
    # What a capture has recorded; None when there is none.
    recorded: list[Work] | None = None
    mode: Any = None
    thread: int = 0
    broken: bool = False


@dataclass
class _Fault:
    code: Any
    after: int


_P = ParamSpec("_P")


def _call(
    values: int = 0,
    *,
    device: bool = True,
    driver: bool = True,
    unsafe: bool = False,
    inject: bool = True,
) -> Callable[
    [Callable[Concatenate[HostCuda, _P], Any]], Callable[Concatenate[HostCuda, _P], tuple[Any, ...]]
]:
    """Makes a method a CUDA function: counts it, and returns an error code and values.

    Args:
        values: how many it returns beside the code; they are None after an error.
        device: the calling thread must have named its device. (CUDA takes device 0 for threads that
            did not, which is wrong as soon as there are two.)
        driver: it needs a driver, of at least the runtime's major version.
        unsafe: a capture that watches the calling thread refuses it.
        inject: a fault keeps it from doing anything; otherwise it asks for its faults itself.
    """

    def wrap(
        function: Callable[Concatenate[HostCuda, _P], Any],
    ) -> Callable[Concatenate[HostCuda, _P], tuple[Any, ...]]:
        @functools.wraps(function)
        def call(self: HostCuda, *args: _P.args, **kwargs: _P.kwargs) -> tuple[Any, ...]:
            with self._lock:
                name = function.__name__
                self.calls.append(name)
                try:
                    if driver:
                        self._need_driver()
                    if device and not self.has_device():
                        raise _CudaError(Errors.cudaErrorDeviceUninitialized)
                    if unsafe:
                        self._refuse_in_capture()
                    if inject:
                        self._inject(name)
                    result = function(self, *args, **kwargs)
                except _CudaError as error:
                    self._thread.last = error.code
                    return (error.code, *[None] * values)
                if values == 0:
                    return (Errors.cudaSuccess,)
                return (Errors.cudaSuccess, *(result if values > 1 else (result,)))

        # Its arguments are positional, which `wraps` does not know.
        return call  # type: ignore[return-value]

    return wrap


class HostCuda:
    """One GPU that is not there.

    Args:
        driver: newest CUDA that the driver knows, as CUDA counts (13000 is 13.0); 0 is no driver.
        runtime: CUDA version of the Python bindings.
        devices: how many GPUs the driver finds.
        name, capability, memory: of the GPU; bytes.

    Attributes:
        calls: names of the functions called, in order.
        misuse: what was done that would be undefined on a GPU.
    """

    def __init__(
        self,
        *,
        driver: int = 13000,
        runtime: int = 13000,
        devices: int = 1,
        name: str = "Host GPU",
        capability: tuple[int, int] = (8, 6),
        memory: int = 1 << 30,
    ) -> None:
        self.driver, self.runtime, self.devices = driver, runtime, devices
        self.name, self.capability, self.memory = name, capability, memory
        self.calls: list[str] = []
        self.misuse: list[str] = []
        self._lock = threading.RLock()
        self._thread = threading.local()
        self._faults: dict[str, list[_Fault]] = {}
        self._device: dict[int, Bytes] = {}
        self._next = DEVICE_BASE
        self._pinned: dict[int, Bytes] = {}
        # Freed pinned memory is kept, so that reading it gives NaN and not a crash.
        self._freed: list[Bytes] = []
        self._handles = count(1)
        self._streams: dict[int, _Stream] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._executables: dict[int, list[Work]] = {}

    # What tests and the stand-in for TensorRT use.

    def module(self) -> ModuleType:
        """What `import cuda.bindings.runtime` gives: its types and constants, our functions."""
        module = ModuleType("cuda.bindings.runtime")
        for name, value in vars(real).items():
            if isinstance(value, (type, int)):
                setattr(module, name, value)
        for name in FUNCTIONS:
            setattr(module, name, getattr(self, name))
        return module

    def fail(self, name: str, code: Any, after: int = 0) -> None:
        """Makes one call of a function fail with an error code.

        Args:
            name: of the function.
            code: the error.
            after: how many calls go well before; they are counted from the failure that was asked
                for before this one, if that is still to come.

        Raises:
            ValueError: there is no such function.
        """
        if name not in FUNCTIONS:
            raise ValueError(f"{name} is not simulated")
        self._faults.setdefault(name, []).append(_Fault(code, after))

    def clear_faults(self) -> int:
        """Takes back the faults that `fail` set and that were not met; how many there were."""
        count = sum(map(len, self._faults.values()))
        self._faults.clear()
        return count

    def live(self) -> dict[str, int]:
        """How much of everything was made and not freed; what there is none of is left out."""
        held: dict[str, dict[int, Any]] = {
            "device memory": self._device,
            "pinned memory": self._pinned,
            "streams": self._streams,
            "graphs": self._graphs,
            "graph executables": self._executables,
        }
        return {name: len(things) for name, things in held.items() if things}

    def used(self) -> int:
        """Bytes of GPU memory that are allocated."""
        return sum(len(buffer) for buffer in self._device.values())

    def take(self, size: int) -> int:
        """Allocates GPU memory, as TensorRT does within its own calls; `give` frees it.

        Raises:
            MemoryError: there is not as much.
        """
        with self._lock:
            try:
                return self._allocate(size)
            except _CudaError:
                raise MemoryError(size) from None

    def give(self, address: int) -> None:
        """Frees what `take` allocated, after all the work that is queued."""
        with self._lock:
            # It runs where Python frees objects, which is no place to raise; misuse is noted.
            with suppress(MisuseError):
                self._finish()
            self._device.pop(address)[:] = POISON

    def device_memory(self, address: int, size: int) -> Bytes:
        """The bytes behind an address of the GPU, for work that runs on it.

        Raises:
            MisuseError: they are not allocated, or no longer.
        """
        return self._within(self._device, address, size, "GPU memory")

    def enqueue(self, stream: Any, work: Work) -> None:
        """Queues work, or records it where the stream is being captured."""
        with self._lock:
            entry = self._known(self._streams, stream, "stream")
            (entry.queue if entry.recorded is None else entry.recorded).append(work)

    def has_device(self) -> bool:
        """Whether the calling thread has named its device."""
        return getattr(self._thread, "device", None) is not None

    def allocates_while_captured(self) -> bool:
        """Whether GPU memory that a library allocates now would break a capture; it then does."""
        with self._lock:
            try:
                self._refuse_in_capture()
            except _CudaError:
                return True
            return False

    # Device and driver.

    @_call(1, device=False)
    def cudaGetDeviceCount(self) -> int:
        return self.devices

    @_call(0, device=False)
    def cudaSetDevice(self, device: int) -> None:
        if not 0 <= device < self.devices:
            raise _CudaError(Errors.cudaErrorInvalidDevice)
        self._thread.device = device

    @_call(1)
    def cudaGetDevice(self) -> int:
        return int(self._thread.device)

    @_call(1, device=False, driver=False)
    def cudaDriverGetVersion(self) -> int:
        return self.driver

    @_call(1, device=False, driver=False)
    def cudaRuntimeGetVersion(self) -> int:
        return self.runtime

    @_call(1, device=False)
    def cudaGetDeviceProperties(self, device: int) -> Any:
        if not 0 <= device < self.devices:
            raise _CudaError(Errors.cudaErrorInvalidDevice)
        properties = real.cudaDeviceProp()
        properties.name = self.name.encode().ljust(256, b"\0")
        properties.major, properties.minor = self.capability
        properties.totalGlobalMem = self.memory
        return properties

    @_call(2)
    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self.memory - self.used(), self.memory

    # Memory.

    @_call(1, unsafe=True)
    def cudaMalloc(self, size: int) -> int:
        return self._allocate(size)

    @_call(0, unsafe=True)
    def cudaFree(self, devPtr: int) -> None:  # noqa: N803
        if devPtr == 0:
            return
        self._finish()
        self._known(self._device, devPtr, "GPU memory")[:] = POISON
        del self._device[devPtr]

    @_call(1, unsafe=True)
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        if flags != real.cudaHostAllocDefault:
            raise _CudaError(Errors.cudaErrorInvalidValue)
        if size == 0:
            return 0
        buffer = np.full(size, POISON, np.uint8)
        address = buffer.ctypes.data
        self._pinned[address] = buffer
        return int(address)

    @_call(0, unsafe=True)
    def cudaFreeHost(self, ptr: int) -> None:
        if ptr == 0:
            return
        self._finish()
        buffer = self._known(self._pinned, ptr, "pinned memory")
        del self._pinned[ptr]
        buffer[:] = POISON
        self._freed.append(buffer)

    @_call(0)
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> None:
        if not isinstance(kind, real.cudaMemcpyKind):
            raise TypeError(f"kind is a {type(kind).__name__}, not a cudaMemcpyKind")
        host, device = (self._pinned, "pinned memory"), (self._device, "GPU memory")
        kinds = real.cudaMemcpyKind
        sides = {
            kinds.cudaMemcpyHostToDevice: (device, host),
            kinds.cudaMemcpyDeviceToHost: (host, device),
            kinds.cudaMemcpyDeviceToDevice: (device, device),
        }
        if kind not in sides:
            raise _CudaError(Errors.cudaErrorInvalidMemcpyDirection)
        (target, target_kind), (source, source_kind) = sides[kind]

        def copy() -> None:
            to = self._within(target, dst, count, target_kind)
            to[:] = self._within(source, src, count, source_kind)

        # Now, to tell whoever calls, and again when it is done, since it may be freed by then.
        self._within(target, dst, count, target_kind)
        self._within(source, src, count, source_kind)
        self.enqueue(stream, copy)

    # Streams and graphs.

    @_call(1)
    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        if flags not in (real.cudaStreamDefault, real.cudaStreamNonBlocking):
            raise _CudaError(Errors.cudaErrorInvalidValue)
        handle = next(self._handles)
        self._streams[handle] = _Stream()
        return real.cudaStream_t(handle)

    @_call(0)
    def cudaStreamDestroy(self, stream: Any) -> None:
        entry = self._known(self._streams, stream, "stream")
        if entry.recorded is not None:
            raise self.wrong("a stream is destroyed while it is captured")
        # CUDA lets go of the stream when its work is done.
        self._run(entry)
        del self._streams[int(stream)]

    @_call(0, inject=False)
    def cudaStreamSynchronize(self, stream: Any) -> None:
        entry = self._known(self._streams, stream, "stream")
        if entry.recorded is not None:
            entry.broken = True
            raise _CudaError(Errors.cudaErrorStreamCaptureUnsupported)
        try:
            self._inject("cudaStreamSynchronize")
        except _CudaError:
            # It is the work that failed, and it is over.
            entry.queue.clear()
            raise
        self._run(entry)

    @_call(0)
    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        if not isinstance(mode, real.cudaStreamCaptureMode):
            raise TypeError(f"mode is a {type(mode).__name__}, not a cudaStreamCaptureMode")
        if int(stream) == 0:
            raise _CudaError(Errors.cudaErrorStreamCaptureUnsupported)
        entry = self._known(self._streams, stream, "stream")
        if entry.recorded is not None:
            raise _CudaError(Errors.cudaErrorIllegalState)
        entry.recorded, entry.mode, entry.broken = [], mode, False
        entry.thread = threading.get_ident()

    @_call(1, inject=False)
    def cudaStreamEndCapture(self, stream: Any) -> Any:
        entry = self._known(self._streams, stream, "stream")
        recorded, relaxed = entry.recorded, real.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        if recorded is None:
            raise _CudaError(Errors.cudaErrorIllegalState)
        if entry.mode != relaxed and entry.thread != threading.get_ident():
            raise _CudaError(Errors.cudaErrorStreamCaptureWrongThread)
        # However it ends, it ends.
        entry.recorded = None
        self._inject("cudaStreamEndCapture")
        if entry.broken:
            raise _CudaError(Errors.cudaErrorStreamCaptureInvalidated)
        handle = next(self._handles)
        self._graphs[handle] = recorded
        return real.cudaGraph_t(handle)

    @_call(1)
    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        if flags != 0:
            raise _CudaError(Errors.cudaErrorInvalidValue)
        work = list(self._known(self._graphs, graph, "graph"))
        handle = next(self._handles)
        self._executables[handle] = work
        return real.cudaGraphExec_t(handle)

    @_call(0)
    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> None:  # noqa: N803
        for work in self._known(self._executables, graphExec, "graph executable"):
            self.enqueue(stream, work)

    @_call(0)
    def cudaGraphDestroy(self, graph: Any) -> None:
        self._known(self._graphs, graph, "graph")
        del self._graphs[int(graph)]

    @_call(0)
    def cudaGraphExecDestroy(self, graphExec: Any) -> None:  # noqa: N803
        self._known(self._executables, graphExec, "graph executable")
        del self._executables[int(graphExec)]

    # Errors.

    @_call(1, device=False, driver=False)
    def cudaGetErrorName(self, error: Any) -> bytes:
        return cast(bytes, real.cudaGetErrorName(error)[1])

    @_call(1, device=False, driver=False)
    def cudaGetErrorString(self, error: Any) -> bytes:
        return cast(bytes, real.cudaGetErrorString(error)[1])

    def cudaGetLastError(self) -> tuple[Any]:
        """The calling thread's last error, which it takes out."""
        self.calls.append("cudaGetLastError")
        last = getattr(self._thread, "last", Errors.cudaSuccess)
        self._thread.last = Errors.cudaSuccess
        return (last,)

    # Underneath.

    def _need_driver(self) -> None:
        # A driver runs every runtime of its own major version, and older ones.
        if self.driver // 1000 < self.runtime // 1000:
            raise _CudaError(Errors.cudaErrorInsufficientDriver)
        if self.devices == 0:
            raise _CudaError(Errors.cudaErrorNoDevice)

    def _inject(self, name: str) -> None:
        if not (faults := self._faults.get(name)):
            return
        if faults[0].after == 0:
            raise _CudaError(faults.pop(0).code)
        faults[0].after -= 1

    def _refuse_in_capture(self) -> None:
        modes = real.cudaStreamCaptureMode
        for stream in self._streams.values():
            mine = stream.thread == threading.get_ident()
            watched = stream.mode == modes.cudaStreamCaptureModeGlobal or (
                stream.mode == modes.cudaStreamCaptureModeThreadLocal and mine
            )
            if stream.recorded is not None and watched:
                stream.broken = True
                raise _CudaError(Errors.cudaErrorStreamCaptureUnsupported)

    def wrong(self, what: str) -> MisuseError:
        """The error for what would be undefined on a GPU, which is noted."""
        self.misuse.append(what)
        return MisuseError(what)

    def _known(self, things: dict[int, Any], handle: Any, kind: str) -> Any:
        if int(handle) not in things:
            raise self.wrong(f"{int(handle):#x} is not {kind}, or no longer")
        return things[int(handle)]

    def _within(self, buffers: dict[int, Bytes], address: Any, size: int, kind: str) -> Bytes:
        # A NumPy integer has a buffer of its own, whose address cuda-python would take.
        if not isinstance(address, int):
            raise self.wrong(f"address is a {type(address).__name__}, not an int")
        for start, buffer in buffers.items():
            if start <= address and address + size <= start + len(buffer):
                return buffer[address - start : address - start + size]
        raise self.wrong(f"{size} bytes at {address:#x} are not {kind}, or no longer")

    def _allocate(self, size: int) -> int:
        if size == 0:
            return 0
        if size > self.memory - self.used():
            raise _CudaError(Errors.cudaErrorMemoryAllocation)
        address = self._next
        # A gap, so that what runs over the end of one buffer does not land in the next.
        self._next += (size // ALIGNMENT + 2) * ALIGNMENT
        self._device[address] = np.full(size, POISON, np.uint8)
        return address

    def _run(self, stream: _Stream) -> None:
        work, stream.queue = stream.queue, []
        for item in work:
            item()

    def _finish(self) -> None:
        # Freeing waits for the device.
        for stream in list(self._streams.values()):
            self._run(stream)


FUNCTIONS = tuple(name for name in vars(HostCuda) if name.startswith("cuda"))


def install(monkeypatch: pytest.MonkeyPatch, gpu: HostCuda) -> None:
    """Puts the stand-in where `cuda.bindings.runtime` is imported from, while a test runs."""
    module = gpu.module()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)
    monkeypatch.setattr(sys.modules["cuda.bindings"], "runtime", module, raising=False)
