"""One GPU through cuda-python: memory, a stream, and a graph that replays what it recorded.

Only the CUDA runtime API is used. It works on the device's primary context, which every thread of
the process shares once the thread has named the device, so an engine may be called from any thread.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.engine import EngineError, UnavailableError

# The first GPU that CUDA_VISIBLE_DEVICES shows.
DEVICE = 0


class Gpu:
    """The GPU that networks run on.

    Attributes:
        name: as NVIDIA calls it.
        compute_capability: of its processor, as `sm86`.
        driver: version of CUDA that the driver supports, as `13.0`.

    Raises:
        UnavailableError: cuda-python, the driver or the GPU is missing.
        EngineError: the driver is too old.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime as cudart
        except ImportError as error:
            raise UnavailableError(
                f"cuda-python is not installed ({error}); pip install cuda-python, of the major"
                " version of CUDA that the driver supports"
            ) from None
        self._cudart: ModuleType = cudart
        version = self._check(cudart.cudaDriverGetVersion())
        if version == 0:
            raise UnavailableError("no NVIDIA driver is installed, so there is no GPU to run on")
        self.driver = _version(version)
        self._check(cudart.cudaGetDeviceCount())
        self.use()
        properties = self._check(cudart.cudaGetDeviceProperties(DEVICE))
        self.name = properties.name.decode().rstrip("\0")
        self.compute_capability = f"sm{properties.major}{properties.minor}"

    def _check(self, result: tuple[Any, ...]) -> Any:
        """The value of a CUDA call.

        Raises:
            EngineError: it failed.
        """
        cudart, (code, *values) = self._cudart, result
        if code == cudart.cudaError_t.cudaSuccess:
            return values[0] if values else None
        # An error that is not taken out would be found by the next call.
        cudart.cudaGetLastError()
        errors = cudart.cudaError_t
        if code == errors.cudaErrorInsufficientDriver:
            _, needed = cudart.cudaRuntimeGetVersion()
            raise EngineError(
                f"the NVIDIA driver supports CUDA {self.driver}, cuda-python is for"
                f" {_version(needed)}; update the driver, or pip install a cuda-python of its major"
                " version"
            )
        if code == errors.cudaErrorNoDevice:
            raise UnavailableError(
                "CUDA finds no NVIDIA GPU; where there is one, see that CUDA_VISIBLE_DEVICES shows"
                " it and that a container was started with it"
            )
        if code == errors.cudaErrorMemoryAllocation:
            raise EngineError(
                "out of GPU memory; end other programs that use the GPU, or take a smaller model"
            )
        _, text = cudart.cudaGetErrorString(code)
        raise EngineError(f"CUDA: {text.decode()} ({code.name})")

    def use(self) -> None:
        """Makes this GPU the calling thread's; needed before every other call in a new thread."""
        self._check(self._cudart.cudaSetDevice(DEVICE))

    def free_bytes(self) -> int:
        """GPU memory that nobody uses."""
        code, free, _ = self._cudart.cudaMemGetInfo()
        self._check((code,))
        return int(free)

    def allocate(self, size: int, owner: ExitStack) -> int:
        """Address of `size` bytes of GPU memory, which `owner` frees.

        Raises:
            EngineError: there is not as much.
        """
        address = int(self._check(self._cudart.cudaMalloc(max(size, 1))))
        self._freed_by(owner, self._cudart.cudaFree, address)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str, owner: ExitStack) -> npt.NDArray[Any]:
        """An array in page-locked memory, which the GPU copies to and from at full speed and
        without waiting; `owner` frees it, after which the array must not be touched.

        Raises:
            EngineError: there is not as much.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        flags = self._cudart.cudaHostAllocDefault
        address = int(self._check(self._cudart.cudaHostAlloc(size, flags)))
        self._freed_by(owner, self._cudart.cudaFreeHost, address)
        memory = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
        array: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        return array

    def stream(self, owner: ExitStack) -> Any:
        """A queue of work that waits for no other, which `owner` destroys."""
        flags = self._cudart.cudaStreamNonBlocking
        stream = self._check(self._cudart.cudaStreamCreateWithFlags(flags))
        self._freed_by(owner, self._cudart.cudaStreamDestroy, stream)
        return stream

    def upload(self, target: int, source: npt.NDArray[Any], stream: Any) -> None:
        """Queues the copy of a pinned array to the GPU."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._check(
            self._cudart.cudaMemcpyAsync(target, source.ctypes.data, source.nbytes, kind, stream)
        )

    def download(self, target: npt.NDArray[Any], source: int, stream: Any) -> None:
        """Queues the copy of GPU memory to a pinned array."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._check(
            self._cudart.cudaMemcpyAsync(target.ctypes.data, source, target.nbytes, kind, stream)
        )

    def wait(self, stream: Any) -> None:
        """Returns when everything that was queued is done.

        Raises:
            EngineError: some of it failed.
        """
        self._check(self._cudart.cudaStreamSynchronize(stream))

    def record(self, work: Callable[[], None], stream: Any, owner: ExitStack) -> Any:
        """A graph of what `work` queues on `stream`, which is not run; `owner` destroys it.

        One launch of it costs the CPU less than the launches of the network's many kernels.

        Raises:
            EngineError: something in `work` cannot be recorded.
        """
        cudart = self._cudart
        # Other threads of the process may allocate meanwhile: only this one's calls are watched.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(cudart.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            _, graph = cudart.cudaStreamEndCapture(stream)
            cudart.cudaGetLastError()
            if graph is not None:
                cudart.cudaGraphDestroy(graph)
            raise
        graph = self._check(cudart.cudaStreamEndCapture(stream))
        try:
            executable = self._check(cudart.cudaGraphInstantiate(graph, 0))
        finally:
            self._check(cudart.cudaGraphDestroy(graph))
        self._freed_by(owner, cudart.cudaGraphExecDestroy, executable)
        return executable

    def replay(self, graph: Any, stream: Any) -> None:
        """Queues what a graph recorded."""
        self._check(self._cudart.cudaGraphLaunch(graph, stream))

    def _freed_by(self, owner: ExitStack, free: Callable[[Any], Any], what: Any) -> None:
        def release() -> None:
            # Whichever thread closes an engine. What a broken GPU says to it helps nobody.
            self._cudart.cudaSetDevice(DEVICE)
            free(what)

        owner.callback(release)


def _version(number: int) -> str:
    """CUDA writes 13.1 as 13010."""
    return f"{number // 1000}.{number % 1000 // 10}"
