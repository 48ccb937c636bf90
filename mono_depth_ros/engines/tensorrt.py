"""TensorRT: networks on NVIDIA GPUs and Jetsons.

A plan is loaded and never built here: building takes minutes, and whoever needs depth meanwhile
uses another engine (see `mono_depth_ros.build_engine` and `mono_depth_ros.serving`).
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.cuda import Gpu
from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.engines.tensorrt_library import TensorRtLibrary
from mono_depth_ros.model import DepthModel

_SHORT = {"float32": "f32", "float16": "f16", "int8": "i8"}


class TensorRtEngine:
    """A plan on a GPU: pinned buffers, one stream, and the whole frame as one CUDA graph.

    Args:
        library: the TensorRT that built the plan.
        gpu: where to run it.
        plan: the serialised engine. It is code, and is run: it must come from a trusted place.
        model: the network that it was built from.
        precision: that it was built with.
        compiled: kernels that an earlier load of the plan compiled; empty compiles them now.

    Attributes:
        compiled: kernels to keep for the next load; empty where the library compiles none.
        gpu_bytes: memory of the GPU that it takes.

    Raises:
        EngineError: the plan is not for this GPU or library, or the GPU's memory does not suffice.
    """

    def __init__(
        self,
        library: TensorRtLibrary,
        gpu: Gpu,
        plan: bytes,
        model: DepthModel,
        precision: str,
        compiled: bytes = b"",
    ) -> None:
        self.metadata, self.camera_size = model.metadata, model.camera_size
        self.declined: tuple[str, ...] = ()
        self._gpu = gpu
        self._context: Any = None
        self._graph: Any = None
        self._held: Any = None
        gpu.use()
        free = gpu.free_bytes()
        # Unwinds in reverse: the context goes before the memory that it works in.
        self._owner = ExitStack()
        try:
            self._load(library, plan, model, compiled)
            self.gpu_bytes = free - gpu.free_bytes()
        except BaseException:
            self.close()
            raise
        replay = "" if self._graph is None else ", CUDA graph"
        self._description = (
            f"{library.name} {library.version} {gpu.name}{replay} {_SHORT[precision]}"
        )

    def _load(
        self, library: TensorRtLibrary, plan: bytes, model: DepthModel, compiled: bytes
    ) -> None:
        trt, gpu, owner = library.trt, self._gpu, self._owner
        try:
            runtime = trt.Runtime(library.log)
        except TypeError:  # what its constructors raise when they fail
            raise library.failure("cannot start") from None
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise library.failure(f"cannot load the engine of {model.path}")
        specs = {}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            dtype = str(engine.get_tensor_dtype(name)).removeprefix("DataType.").lower()
            dtype = {"float": "float32", "half": "float16"}.get(dtype, dtype)
            shape = tuple(engine.get_tensor_shape(name))
            specs[engine.get_tensor_mode(name)] = TensorSpec(name, shape, dtype)
        self.input_spec = specs[trt.TensorIOMode.INPUT]
        self.output_spec = specs[trt.TensorIOMode.OUTPUT]
        check_specs(
            str(model.path), model.metadata, self.input_spec, self.output_spec, model.camera_size
        )

        self._input = gpu.pinned(self.input_spec.shape, self.input_spec.dtype, owner)
        self._output = gpu.pinned(self.output_spec.shape, self.output_spec.dtype, owner)
        self._source = gpu.allocate(self._input.nbytes, owner)
        self._result = gpu.allocate(self._output.nbytes, owner)
        self._stream = gpu.stream(owner)
        # Memory that is ours: a graph may then hold its address, and its lack is found now.
        scratch = int(engine.device_memory_size_v2)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        cache = None
        if library.traits.runtime_cache:
            runtime_config = engine.create_runtime_config()
            runtime_config.set_execution_context_allocation_strategy(strategy)
            cache = runtime_config.create_runtime_cache()
            if compiled:
                # Refused after an update of the driver, and then compiled anew.
                cache.deserialize(compiled)
            runtime_config.set_runtime_cache(cache)
            library.log.errors.clear()
            context = engine.create_execution_context(runtime_config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            raise library.failure(f"cannot prepare {model.path}")
        context.set_device_memory(gpu.allocate(scratch, owner), scratch)
        for spec, address in ((self.input_spec, self._source), (self.output_spec, self._result)):
            if not context.set_tensor_address(spec.name, address):
                raise library.failure(f"has no tensor {spec.name}")
        self._library, self._context = library, context
        self._input[:] = 0
        # The first run prepares what must not be recorded, and finds what fails.
        self._frame()
        gpu.wait(self._stream)
        # A network that cannot be recorded runs without a graph.
        with suppress(EngineError):
            self._graph = gpu.record(self._frame, self._stream, owner)
        kept = None if cache is None else cache.serialize()
        self.compiled = b"" if kept is None else bytes(kept)
        # What kernels were compiled for, and what they came from.
        self._held = (runtime, engine, cache)
        library.log.errors.clear()

    def _frame(self) -> None:
        """Queues upload, network and download."""
        self._gpu.upload(self._source, self._input, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._library.failure("cannot run the network")
        self._gpu.download(self._output, self._result, self._stream)

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        if self._context is None:
            raise EngineError("the engine is closed")
        self._gpu.use()
        np.copyto(self._input[0], image)
        if self._graph is None:
            self._frame()
        else:
            self._gpu.replay(self._graph, self._stream)
        self._gpu.wait(self._stream)
        depth: npt.NDArray[np.float32] = self._output[0]
        return depth

    def describe(self) -> str:
        return self._description

    def close(self) -> None:
        if self._context is not None:
            # A frame that failed may have left work behind.
            with suppress(EngineError):
                self._gpu.use()
                self._gpu.wait(self._stream)
        # TensorRT's objects keep each other alive as long as they must, and go before the memory.
        self._context = self._graph = self._held = None
        self._owner.close()
