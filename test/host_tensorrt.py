"""A stand-in for TensorRT on the GPU of `host_cuda`: engines are built, kept, loaded and run.

The part of TensorRT's Python interface that the package uses, with the names, signatures and
manners of the real one: calls that fail log a line and return None or False; constructors that fail
raise pybind11's TypeError; a context works on the addresses that it was given, when its stream gets
to it. A plan is a header (library, version, compute capability) and the ONNX file, which ONNX
Runtime computes. `test_tensorrt_api` holds every class here to the real bindings of the same
version, so that nothing exists here that does not exist there.

What it cannot show: speed, TensorRT's own kernels and rounding, which operators and which types a
TensorRT really takes, how long a build lasts, how much memory it needs. It knows two rules of the
real ones: a uint8 input goes into a Cast and nowhere else, and operators have to be known to ONNX.
"""

from __future__ import annotations

import enum
import functools
import json
import struct
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from host_cuda import HostCuda
from onnx import TensorProto, helper

# Module, version, and which of the three kinds of TensorRT it is.
FLAVOURS = {
    "tensorrt 10.3": ("tensorrt", "10.3.0"),
    "tensorrt 11.4": ("tensorrt", "11.4.0.106"),
    "tensorrt_rtx 1.7": ("tensorrt_rtx", "1.7.1.116"),
}
# Modules that hold a TensorRT, which must not be the one that is installed.
MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")

RTX = ("tensorrt_rtx 1.7",)
NEWER = ("tensorrt 11.4", *RTX)
# What only some have; all others are in every flavour.
ONLY = {
    "ICudaEngine.create_runtime_config": NEWER,
    "IRuntimeConfig": NEWER,
    "IRuntimeConfig.create_runtime_cache": RTX,
    "IRuntimeConfig.set_runtime_cache": RTX,
    "IRuntimeConfig.get_runtime_cache": RTX,
    "IRuntimeCache": RTX,
    "IBuilderConfig.num_compute_capabilities": RTX,
    "IBuilderConfig.set_compute_capability": RTX,
    "IBuilderConfig.get_compute_capability": RTX,
    "IExecutionContext.is_stream_capturable": RTX,
    "ComputeCapability": RTX,
    "BuilderFlag.REQUIRE_USER_ALLOCATION": RTX,
}
MAGIC = b"HTRT"
CACHE_MAGIC = b"HTIM"
KERNELS_MAGIC = b"HKER"
SCRATCH_BYTES = 4096
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.UINT8: "UINT8",
}


class _BoundEnum(enum.Enum):
    """As pybind11 binds an enumeration: it turns into its number, and is not one."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


@functools.total_ordering
class Severity(_BoundEnum):
    """How bad a message is; the worst is the least."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4

    def __lt__(self, other: Severity) -> bool:
        return int(self) < int(other)


ENUMERATIONS = {
    "DataType": {
        "FLOAT": 0, "HALF": 1, "INT8": 2, "INT32": 3, "BOOL": 4, "UINT8": 5, "BF16": 7, "INT64": 8,
    },
    "TensorIOMode": {"NONE": 0, "INPUT": 1, "OUTPUT": 2},
    "ExecutionContextAllocationStrategy": {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2},
    "MemoryPoolType": {"WORKSPACE": 0},
    "BuilderFlag": {"REQUIRE_USER_ALLOCATION": 28},
    "ComputeCapability": {
        "NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM89": 89, "SM120": 120,
        "SM121": 121,
    },
}  # fmt: skip


class _Absent:
    """What this flavour does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        raise AttributeError(f"this TensorRT has no {self._name}")


class _Native:
    """An object of TensorRT: made by TensorRT, and without attributes of other people's."""

    _host: ClassVar[HostTensorRt]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        super().__setattr__(name, value)


class _Interface:
    """What a program derives its own classes from."""

    _host: ClassVar[HostTensorRt]

    def __init__(self) -> None:
        self._ready = True


class ILogger(_Interface):
    Severity: ClassVar[type[_BoundEnum]] = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor(_Interface):
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Bytes that TensorRT owns."""

    @property
    def nbytes(self) -> int:
        return len(self)


class Dims(Sequence[int]):
    """A shape: a sequence, but no tuple."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)


@dataclass(frozen=True)
class _Header:
    """Start of a plan."""

    flavour: str
    version: str
    capability: int
    user_allocation: bool
    strongly_typed: bool

    def pack(self) -> bytes:
        text = json.dumps(vars(self)).encode()
        return MAGIC + struct.pack("<I", len(text)) + text


def read_header(plan: bytes) -> dict[str, Any]:
    """What a plan says of itself.

    Raises:
        ValueError: it is no plan, or not all of one.
    """
    if plan[:4] != MAGIC or len(plan) < 8:
        raise ValueError("Serialization assertion failed: magic tag does not match")
    (length,) = struct.unpack("<I", plan[4:8])
    header: dict[str, Any] = json.loads(plan[8 : 8 + length])
    header["onnx"] = plan[8 + length :]
    return header


def edited(plan: bytes, **changes: Any) -> bytes:
    """A plan that says other things of itself."""
    header = read_header(plan)
    content = header.pop("onnx")
    return _Header(**{**header, **changes}).pack() + bytes(content)


class Runtime(_Native):
    def __init__(self, logger: ILogger) -> None:
        self._logger = self._host.logger(logger)
        if self._host.broken("Runtime") or self._host.no_gpu():
            self._logger.log(Severity.ERROR, "CUDA initialization failure")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        host, plan = self._host, bytes(serialized_engine)

        def refuse(text: str) -> Any:
            self._logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: {text}")
            return None

        if host.broken("deserialize_cuda_engine"):
            return refuse("Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)")
        if not host.cuda_ready():
            return refuse("Error Code 1: Cuda Runtime (the thread has no device)")
        try:
            header = read_header(plan)
            model = onnx.load_model_from_string(header["onnx"])
            session = _session(header["onnx"])
        except (ValueError, DecodeError, KeyError) as error:
            return refuse(f"Error Code 1: Serialization ({error})")
        if (header["flavour"], header["version"]) != (host.flavour, host.version):
            return refuse(
                "Error Code 6: API Usage Error (The engine plan file is not compatible with this"
                f" version of TensorRT, expecting library version {host.version} got"
                f" {header['version']}, please rebuild.)"
            )
        if header["capability"] != host.capability:
            return refuse(
                "Error Code 6: API Usage Error (The engine plan file is generated on an"
                f" incompatible device, expecting compute {host.capability} got compute"
                f" {header['capability']}, please rebuild.)"
            )
        try:
            weights = host.cuda.take(len(plan))
        except MemoryError:
            return refuse(f"Error Code 2: OutOfMemory (Requested size was {len(plan)} bytes.)")
        engine: ICudaEngine = host.new("ICudaEngine")
        engine._fill(self, model, session, header, weights)
        return engine


def _session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but Exception
        raise ValueError(str(error).splitlines()[0]) from None


@dataclass(frozen=True)
class _Tensor:
    mode: str
    shape: tuple[int, ...]
    type: int

    @property
    def dtype(self) -> Any:
        return helper.tensor_dtype_to_np_dtype(self.type)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * int(self.dtype.itemsize)


class ICudaEngine(_Native):
    def _fill(
        self, runtime: Runtime, model: Any, session: Any, header: dict[str, Any], weights: int
    ) -> None:
        self._runtime, self._session, self._header = runtime, session, header
        self._tensors = {
            value.name: _Tensor(
                mode,
                tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
                value.type.tensor_type.elem_type,
            )
            for mode, values in (("INPUT", model.graph.input), ("OUTPUT", model.graph.output))
            for value in values
        }
        # The weights stay on the GPU as long as anyone holds the engine.
        weakref.finalize(self, self._host.cuda.give, weights).atexit = False

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH_BYTES

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._tensors)[index])

    def get_tensor_mode(self, name: str) -> Any:
        return self._host.module.TensorIOMode[self._tensors[name].mode]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._host.module.DataType[_TYPES[self._tensors[name].type]]

    def create_runtime_config(self) -> IRuntimeConfig:
        config: IRuntimeConfig = self._host.new("IRuntimeConfig")
        config._strategy = self._host.module.ExecutionContextAllocationStrategy.STATIC
        config._cache = None
        return config

    def create_execution_context(self, strategy: Any = None) -> IExecutionContext | None:
        host, strategies = self._host, self._host.module.ExecutionContextAllocationStrategy
        config, kernels = None, None
        if isinstance(strategy, IRuntimeConfig):
            config, strategy = strategy, strategy._strategy
        elif strategy is None:
            strategy = strategies.STATIC
        elif not isinstance(strategy, strategies):
            raise TypeError("create_execution_context(): incompatible function arguments.")
        scratch = 0
        try:
            if host.broken("create_execution_context"):
                raise MemoryError
            if strategy != strategies.USER_MANAGED:
                scratch = host.cuda.take(SCRATCH_BYTES)
        except MemoryError:
            self._runtime._logger.log(
                Severity.ERROR,
                "IExecutionContext::IExecutionContext: Error Code 2: OutOfMemory (Requested size"
                f" was {SCRATCH_BYTES} bytes.)",
            )
            return None
        if config is not None and config._cache is not None:
            kernels = config._cache
            kernels._known = True
            host.compiled += not kernels._loaded
        context: IExecutionContext = host.new("IExecutionContext")
        context._fill(self, scratch)
        return context


class IRuntimeConfig(_Native):
    _strategy: Any
    _cache: IRuntimeCache | None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        cache: IRuntimeCache = self._host.new("IRuntimeCache")
        cache._loaded = cache._known = False
        return cache

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache


class IRuntimeCache(_Native):
    """Kernels that were compiled when a plan was loaded.

    Here: whether there are any, for this version of the library and of the driver.
    """

    _loaded: bool
    _known: bool

    def _tag(self) -> bytes:
        return KERNELS_MAGIC + f"{self._host.version} {self._host.cuda.driver}".encode()

    def deserialize(self, blob: Any) -> bool:
        self._loaded = bytes(blob) == self._tag()
        return self._loaded

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._tag() if self._known else b"")


class IExecutionContext(_Native):
    def _fill(self, engine: ICudaEngine, scratch: int) -> None:
        self._engine, self._logger = engine, engine._runtime._logger
        self._scratch = scratch
        self._addresses: dict[str, int] = {}
        if scratch:
            weakref.finalize(self, self._host.cuda.give, scratch).atexit = False

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % 256:
            raise self._host.cuda.wrong(f"memory at {memory:#x} is not aligned to 256 bytes")
        if size < SCRATCH_BYTES:
            self._logger.log(Severity.ERROR, "setDeviceMemoryV2: the memory is too small")
            return
        self._scratch = memory

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            self._logger.log(Severity.ERROR, f"setTensorAddress: no tensor is called {name}")
            return False
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def is_stream_capturable(self, stream: int) -> bool:
        return bool(self._engine._header["user_allocation"])

    def execute_async_v3(self, stream_handle: int) -> bool:
        host, engine = self._host, self._engine

        def refuse(text: str) -> bool:
            self._logger.log(Severity.ERROR, f"IExecutionContext::enqueueV3: {text}")
            return False

        if not isinstance(stream_handle, int):
            raise TypeError("execute_async_v3(): incompatible function arguments.")
        if host.broken("execute_async_v3"):
            return refuse("Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)")
        if not host.cuda_ready():
            return refuse("Error Code 1: Cuda Runtime (the thread has no device)")
        missing = engine._tensors.keys() - self._addresses.keys()
        if missing:
            return refuse(f"Error Code 3: API Usage Error (no address for {min(missing)})")
        if not self._scratch:
            return refuse("Error Code 3: API Usage Error (no device memory was set)")
        # TensorRT-RTX allocates while it runs, unless the plan was built not to.
        allocates = host.flavour in RTX and not engine._header["user_allocation"]
        if allocates and host.cuda.allocates_while_captured():
            return refuse("Error Code 1: Cuda Runtime (operation not permitted when stream is"
                          " capturing)")  # fmt: skip
        # What the kernels would hold: addresses, but neither context nor engine.
        me, session = weakref.ref(self), engine._session
        addresses, scratch = dict(self._addresses), self._scratch
        tensors, cuda = engine._tensors, host.cuda

        def work() -> None:
            if me() is None:
                raise cuda.wrong("a context was destroyed before its work was done")
            cuda.device_memory(scratch, SCRATCH_BYTES)[:] = 0xFF
            memory = {
                name: cuda.device_memory(addresses[name], tensor.nbytes)
                for name, tensor in tensors.items()
            }
            names = [name for name, tensor in tensors.items() if tensor.mode == "OUTPUT"]
            feed = {
                name: memory[name].view(tensor.dtype).reshape(tensor.shape)
                for name, tensor in tensors.items()
                if tensor.mode == "INPUT"
            }
            for name, result in zip(names, session.run(names, feed), strict=True):
                memory[name][:] = np.frombuffer(np.ascontiguousarray(result), np.uint8)

        cuda.enqueue(stream_handle, work)
        return True


class Builder(_Native):
    def __init__(self, logger: ILogger) -> None:
        self._logger = self._host.logger(logger)
        # TensorRT-RTX builds without a GPU, TensorRT asks for one at once.
        if self._host.broken("Builder") or (self._host.flavour not in RTX and self._host.no_gpu()):
            self._logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        network: INetworkDefinition = self._host.new("INetworkDefinition")
        known = self._host.module.NetworkDefinitionCreationFlag
        # TensorRT 11 and RTX build no other networks.
        typed = bool(int(flags) & (1 << int(known.STRONGLY_TYPED)))
        network._typed = typed or self._host.flavour in NEWER
        network._content = b""
        return network

    def create_builder_config(self) -> IBuilderConfig:
        config: IBuilderConfig = self._host.new("IBuilderConfig")
        config._flags, config._targets, config._cache = set(), [], None
        return config

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        host = self._host

        def refuse(text: str) -> Any:
            self._logger.log(Severity.ERROR, f"IBuilder::buildSerializedNetwork: {text}")
            return None

        if not network._content:
            return refuse("Error Code 4: API Usage Error (Network must have at least one output.)")
        targets = config._targets
        if any(int(target) == 0 for target in targets) or len(targets) > 1:
            return refuse("Error Code 4: API Usage Error (bad compute capabilities)")
        if (not targets or int(targets[0]) == 1) and host.no_gpu():
            return refuse("Error Code 1: Cuda Runtime (cudaError 35)")
        capability = int(targets[0]) if targets and int(targets[0]) > 1 else host.capability
        if not _report_progress(config.progress_monitor):
            return refuse("Error Code 7: BuildCanceled (Build canceled by user)")
        if host.broken("build_serialized_network"):
            return refuse("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)")
        if config._cache is not None:
            config._cache._builds += 1
        flags = {flag.name for flag in config._flags}
        header = _Header(
            host.flavour, host.version, capability, "REQUIRE_USER_ALLOCATION" in flags,
            network._typed,
        )  # fmt: skip
        return IHostMemory(header.pack() + network._content)


def _report_progress(monitor: IProgressMonitor | None) -> bool:
    """Phases as TensorRT reports them: nested, and the last step of the outermost is not told."""
    if monitor is None:
        return True

    def told(phase: str, step: int) -> bool:
        try:
            return bool(monitor.step_complete(phase, step))
        except Exception as error:  # TensorRT prints it, and cancels the build
            print(f"[ERROR] Exception caught in step_complete(): {error!r}", file=sys.stderr)
            return False

    outer, phases = "Building engine", {"Optimizing graph": 4, "Timing tactics": 8}
    going = True
    monitor.phase_start(outer, None, len(phases) + 1)
    for i, (phase, steps) in enumerate(phases.items()):
        monitor.phase_start(phase, outer, steps)
        going = all(told(phase, step) for step in range(steps))
        monitor.phase_finish(phase)
        going = going and told(outer, i)
        if not going:
            break
    monitor.phase_finish(outer)
    return going


class INetworkDefinition(_Native):
    _typed: bool
    _content: bytes


class IBuilderConfig(_Native):
    progress_monitor: IProgressMonitor | None = None
    builder_optimization_level: int = 3
    _flags: set[Any]
    _targets: list[Any]
    _cache: ITimingCache | None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(self._host.module.BuilderFlag(flag))

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if pool not in self._host.module.MemoryPoolType:
            raise TypeError("set_memory_pool_limit(): incompatible function arguments.")

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._targets)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, number: int) -> None:
        none = self._host.module.ComputeCapability.NONE
        self._targets = [none] * number

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        if index >= len(self._targets):
            return False
        self._targets[index] = self._host.module.ComputeCapability(compute_capability)
        return True

    def get_compute_capability(self, index: int) -> Any:
        return self._targets[index]

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        self._host.deprecated_in_rtx("create_timing_cache")
        blob = bytes(serialized_timing_cache)
        cache: ITimingCache = self._host.new("ITimingCache")
        cache._version, cache._builds = f"{self._host.version} sm{self._host.capability}", 0
        if blob:
            if blob[:4] != CACHE_MAGIC:
                return None
            cache._version, cache._builds = json.loads(blob[4:])
        return cache

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._host.deprecated_in_rtx("set_timing_cache")
        if not isinstance(cache, ITimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments.")
        here = f"{self._host.version} sm{self._host.capability}"
        if cache._version != here and not ignore_mismatch:
            return False
        self._cache = cache
        return True


class ITimingCache(_Native):
    """Here: for which library and GPU it is, and how many builds it has seen."""

    _version: str
    _builds: int

    def serialize(self) -> IHostMemory:
        return IHostMemory(CACHE_MAGIC + json.dumps([self._version, self._builds]).encode())


class ParserError(_Native):
    _text: str
    _node: Any
    _index: int

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._index

    def node_operator(self) -> str:
        return "" if self._node is None else str(self._node.op_type)

    def node_name(self) -> str:
        return "" if self._node is None else str(self._node.name)


class OnnxParser(_Native):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, self._host.logger(logger)
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        try:
            proto = onnx.load_model_from_string(bytes(model))
        except DecodeError:
            return self._refuse("Failed to parse the ONNX model.", None, -1)
        images = {
            value.name
            for value in proto.graph.input
            if value.type.tensor_type.elem_type == TensorProto.UINT8
        }
        for i, node in enumerate(proto.graph.node):
            if not onnx.defs.has(node.op_type, node.domain):
                return self._refuse("Plugin not found", node, i)
            if images & set(node.input) and node.op_type != "Cast":
                return self._refuse(f"{node.name}: first input has type UInt8", node, i)
        self._network._content = bytes(model)
        return True

    def _refuse(self, text: str, node: Any, index: int) -> bool:
        error: ParserError = self._host.new("ParserError")
        error._text, error._node, error._index = text, node, index
        self._errors.append(error)
        self._logger.log(Severity.ERROR, f"While parsing node number {index}: {text}")
        return False


CLASSES: tuple[type, ...] = (
    ILogger, IProgressMonitor, IHostMemory, Dims, Runtime, ICudaEngine, IRuntimeConfig,
    IRuntimeCache, IExecutionContext, Builder, INetworkDefinition, IBuilderConfig, ITimingCache,
    ParserError, OnnxParser,
)  # fmt: skip


class HostTensorRt:
    """One TensorRT that is installed, on one GPU.

    Args:
        flavour: key of `FLAVOURS`.
        cuda: the GPU.

    Attributes:
        module: what importing it gives.
        compiled: how many contexts had to compile their kernels anew.
    """

    def __init__(self, flavour: str, cuda: HostCuda) -> None:
        self.flavour, self.cuda = flavour, cuda
        name, self.version = FLAVOURS[flavour]
        self.compiled = 0
        self._faults: dict[str, deque[int]] = {}
        self.module = ModuleType(name)
        self.module.__dict__["__version__"] = self.version
        for title, members in (*ENUMERATIONS.items(), ("NetworkDefinitionCreationFlag", None)):
            if members is None:
                # It had company in TensorRT 10.
                members = {"STRONGLY_TYPED": 1 if flavour == "tensorrt 10.3" else 0}
            members = {key: n for key, n in members.items() if self._has(f"{title}.{key}")}
            if self._has(title) and members:
                bound: Any = _BoundEnum
                setattr(self.module, title, bound(title, members))
        for base in CLASSES:
            if self._has(base.__name__):
                absent = {
                    path.split(".")[1]: _Absent()
                    for path in ONLY
                    if path.startswith(f"{base.__name__}.") and not self._has(path)
                }
                own = {"_host": self, "__module__": name, **absent}
                setattr(self.module, base.__name__, type(base.__name__, (base,), own))

    @property
    def capability(self) -> int:
        """Of the GPU, as 86."""
        major, minor = self.cuda.capability
        return 10 * major + minor

    def fail(self, name: str, after: int = 0) -> None:
        """Makes one call fail for lack of memory.

        Args:
            name: `Runtime`, `Builder` or the method.
            after: how many calls go well before; they are counted from the failure that was asked
                for before this one, if that is still to come.
        """
        self._faults.setdefault(name, deque()).append(after)

    def broken(self, name: str) -> bool:
        """Whether this call of `name` is to fail."""
        if not (faults := self._faults.get(name)):
            return False
        if faults[0] == 0:
            faults.popleft()
            return True
        faults[0] -= 1
        return False

    def no_gpu(self) -> bool:
        """Whether there is no GPU that CUDA can use."""
        cuda = self.cuda
        return cuda.devices == 0 or cuda.driver // 1000 < cuda.runtime // 1000

    def cuda_ready(self) -> bool:
        """Whether the calling thread has named its GPU."""
        return not self.no_gpu() and self.cuda.has_device()

    def logger(self, logger: Any) -> ILogger:
        """The logger, if it is one.

        Raises:
            TypeError: as pybind11 does.
        """
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments.")
        if not getattr(logger, "_ready", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        return logger

    def new(self, name: str) -> Any:
        """An object that only TensorRT makes."""
        kind = getattr(self.module, name)
        return kind.__new__(kind)

    def deprecated_in_rtx(self, name: str) -> None:
        """Warns as TensorRT-RTX does."""
        if self.flavour in RTX:
            warnings.warn(
                f"{name}: Timing cache operations are no-ops in TensorRT-RTX.",
                DeprecationWarning,
                stacklevel=3,
            )

    def _has(self, path: str) -> bool:
        return self.flavour in ONLY.get(path, (self.flavour,))


def install(monkeypatch: pytest.MonkeyPatch, *hosts: HostTensorRt) -> None:
    """Makes these the only TensorRTs that can be imported, while a test runs."""
    for name in MODULES:
        # None is what makes an import fail.
        monkeypatch.setitem(sys.modules, name, None)
    for host in hosts:
        monkeypatch.setitem(sys.modules, host.module.__name__, host.module)
