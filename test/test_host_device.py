"""The stand-in for a GPU keeps CUDA's rules: it does what a GPU would, and refuses as one would."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host_cuda
import host_tensorrt
import networks
import numpy as np
import numpy.typing as npt
import pytest
from host_cuda import HostCuda, MisuseError, real
from host_tensorrt import FLAVOURS, HostTensorRt

Errors = real.cudaError_t
TO_GPU = real.cudaMemcpyKind.cudaMemcpyHostToDevice
TO_HOST = real.cudaMemcpyKind.cudaMemcpyDeviceToHost
WATCHED = real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
GLOBAL = real.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal


def ok(result: tuple[Any, ...]) -> Any:
    assert result[0] == Errors.cudaSuccess, result
    return result[1] if len(result) == 2 else result[1:]


@pytest.fixture
def gpu() -> HostCuda:
    gpu = HostCuda(memory=10_000)
    ok(gpu.cudaSetDevice(0))
    return gpu


def pinned(gpu: HostCuda, values: list[int]) -> tuple[npt.NDArray[np.uint8], int]:
    address = ok(gpu.cudaHostAlloc(len(values), real.cudaHostAllocDefault))
    array = np.ctypeslib.as_array((ctypes.c_ubyte * len(values)).from_address(address))
    array[:] = values
    return array, address


def stream_of(gpu: HostCuda) -> Any:
    return ok(gpu.cudaStreamCreateWithFlags(real.cudaStreamNonBlocking))


def test_copies_are_made_when_somebody_waits(gpu: HostCuda) -> None:
    source, source_at = pinned(gpu, [1, 2, 3])
    target, target_at = pinned(gpu, [0, 0, 0])
    memory, stream = ok(gpu.cudaMalloc(3)), stream_of(gpu)
    ok(gpu.cudaMemcpyAsync(memory, source_at, 3, TO_GPU, stream))
    ok(gpu.cudaMemcpyAsync(target_at, memory, 3, TO_HOST, stream))
    assert target.tolist() == [0, 0, 0]
    # The copy may be late enough to see this.
    source[0] = 9
    ok(gpu.cudaStreamSynchronize(stream))
    assert target.tolist() == [9, 2, 3]


def test_parts_of_a_buffer_are_copied(gpu: HostCuda) -> None:
    source, source_at = pinned(gpu, [1, 2, 3, 4])
    memory, stream = ok(gpu.cudaMalloc(4)), stream_of(gpu)
    ok(gpu.cudaMemcpyAsync(memory + 1, source_at + 2, 2, TO_GPU, stream))
    ok(gpu.cudaStreamSynchronize(stream))
    assert gpu.device_memory(memory, 4).tolist() == [255, 3, 4, 255]
    assert source.tolist() == [1, 2, 3, 4]


def test_new_and_freed_memory_holds_nan(gpu: HostCuda) -> None:
    address = ok(gpu.cudaHostAlloc(8, real.cudaHostAllocDefault))
    array = np.ctypeslib.as_array((ctypes.c_float * 2).from_address(address))
    assert np.isnan(array).all()
    array[:] = 1
    ok(gpu.cudaFreeHost(address))
    assert np.isnan(array).all()
    assert np.isnan(gpu.device_memory(ok(gpu.cudaMalloc(8)), 8).view(np.float32)).all()


@pytest.mark.parametrize("where", ["source", "target", "size"])
def test_memory_that_is_not_allocated_is_not_copied(gpu: HostCuda, where: str) -> None:
    _, host = pinned(gpu, [1, 2])
    memory, stream = ok(gpu.cudaMalloc(2)), stream_of(gpu)
    pageable = np.zeros(2, np.uint8)
    arguments = {
        "source": (memory, pageable.ctypes.data, 2),
        "target": (host, host, 2),
        "size": (memory, host, 3),
    }[where]
    with pytest.raises(MisuseError, match="are not"):
        gpu.cudaMemcpyAsync(*arguments, TO_GPU, stream)
    assert len(gpu.misuse) == 1


def test_a_numpy_integer_is_no_address(gpu: HostCuda) -> None:
    _, host = pinned(gpu, [1])
    memory: Any = np.int64(ok(gpu.cudaMalloc(1)))
    with pytest.raises(MisuseError, match="int64, not an int"):
        gpu.cudaMemcpyAsync(memory, host, 1, TO_GPU, stream_of(gpu))


@pytest.mark.parametrize("kind", ["device", "pinned", "stream"])
def test_what_is_freed_cannot_be_used_or_freed_again(gpu: HostCuda, kind: str) -> None:
    ways: dict[str, tuple[Callable[[], Any], Callable[[Any], tuple[Any, ...]]]] = {
        "device": (lambda: ok(gpu.cudaMalloc(4)), gpu.cudaFree),
        "pinned": (lambda: ok(gpu.cudaHostAlloc(4, 0)), gpu.cudaFreeHost),
        "stream": (lambda: stream_of(gpu), gpu.cudaStreamDestroy),
    }
    make, free = ways[kind]
    thing = make()
    assert sum(gpu.live().values()) == 1
    ok(free(thing))
    assert gpu.live() == {}
    with pytest.raises(MisuseError, match="or no longer"):
        free(thing)


def test_freeing_waits_for_the_work_that_is_queued(gpu: HostCuda) -> None:
    _, source = pinned(gpu, [7])
    target, target_at = pinned(gpu, [0])
    memory, stream = ok(gpu.cudaMalloc(1)), stream_of(gpu)
    ok(gpu.cudaMemcpyAsync(memory, source, 1, TO_GPU, stream))
    ok(gpu.cudaMemcpyAsync(target_at, memory, 1, TO_HOST, stream))
    ok(gpu.cudaFree(memory))
    assert target.tolist() == [7]


def test_a_graph_records_and_replays(gpu: HostCuda) -> None:
    source, source_at = pinned(gpu, [1])
    target, target_at = pinned(gpu, [0])
    memory, stream = ok(gpu.cudaMalloc(1)), stream_of(gpu)
    ok(gpu.cudaStreamBeginCapture(stream, WATCHED))
    ok(gpu.cudaMemcpyAsync(memory, source_at, 1, TO_GPU, stream))
    ok(gpu.cudaMemcpyAsync(target_at, memory, 1, TO_HOST, stream))
    graph = ok(gpu.cudaStreamEndCapture(stream))
    executable = ok(gpu.cudaGraphInstantiate(graph, 0))
    ok(gpu.cudaGraphDestroy(graph))
    ok(gpu.cudaStreamSynchronize(stream))
    assert target.tolist() == [0]
    for value in (5, 6):
        source[0] = value
        ok(gpu.cudaGraphLaunch(executable, stream))
        ok(gpu.cudaStreamSynchronize(stream))
        assert target.tolist() == [value]
    # What a graph reads must be there when it runs.
    ok(gpu.cudaFree(memory))
    ok(gpu.cudaGraphLaunch(executable, stream))
    with pytest.raises(MisuseError, match="not GPU memory"):
        gpu.cudaStreamSynchronize(stream)


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda gpu, stream: gpu.cudaMalloc(1),
        lambda gpu, stream: gpu.cudaHostAlloc(1, 0),
        lambda gpu, stream: gpu.cudaStreamSynchronize(stream),
    ],
)
def test_a_capture_is_broken_by_what_cannot_be_recorded(
    gpu: HostCuda, forbidden: Callable[[HostCuda, Any], tuple[Any, ...]]
) -> None:
    stream = stream_of(gpu)
    ok(gpu.cudaStreamBeginCapture(stream, WATCHED))
    assert forbidden(gpu, stream)[0] == Errors.cudaErrorStreamCaptureUnsupported
    code, graph = gpu.cudaStreamEndCapture(stream)
    assert code == Errors.cudaErrorStreamCaptureInvalidated and graph is None
    # It is over all the same.
    ok(gpu.cudaMalloc(1))


def in_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize(("mode", "allowed"), [(WATCHED, True), (GLOBAL, False)])
def test_a_capture_watches_other_threads_as_its_mode_says(
    gpu: HostCuda, mode: Any, allowed: bool
) -> None:
    stream = stream_of(gpu)
    ok(gpu.cudaStreamBeginCapture(stream, mode))

    def allocate() -> Any:
        gpu.cudaSetDevice(0)
        return gpu.cudaMalloc(1)[0]

    assert (in_thread(allocate) == Errors.cudaSuccess) is allowed
    code, _ = in_thread(lambda: [gpu.cudaSetDevice(0), gpu.cudaStreamEndCapture(stream)][1])
    assert code == Errors.cudaErrorStreamCaptureWrongThread


def test_a_thread_has_to_name_its_device(gpu: HostCuda) -> None:
    assert in_thread(lambda: gpu.cudaMalloc(1)) == (Errors.cudaErrorDeviceUninitialized, None)
    assert gpu.cudaSetDevice(1) == (Errors.cudaErrorInvalidDevice,)


def test_the_last_error_is_taken_out_once(gpu: HostCuda) -> None:
    assert gpu.cudaMalloc(10_001) == (Errors.cudaErrorMemoryAllocation, None)
    assert in_thread(gpu.cudaGetLastError) == (Errors.cudaSuccess,)
    assert gpu.cudaGetLastError() == (Errors.cudaErrorMemoryAllocation,)
    assert gpu.cudaGetLastError() == (Errors.cudaSuccess,)


def test_memory_is_counted(gpu: HostCuda) -> None:
    first = ok(gpu.cudaMalloc(4000))
    assert ok(gpu.cudaMemGetInfo()) == (6000, 10_000)
    assert gpu.cudaMalloc(6001)[0] == Errors.cudaErrorMemoryAllocation
    second = ok(gpu.cudaMalloc(6000))
    assert second % 256 == 0 and second >= first + 4000
    ok(gpu.cudaFree(first))
    assert gpu.live() == {"device memory": 1} and gpu.used() == 6000


def test_a_fault_hits_the_call_that_it_is_set_for(gpu: HostCuda) -> None:
    gpu.fail("cudaMalloc", Errors.cudaErrorMemoryAllocation, after=1)
    codes = [gpu.cudaMalloc(1)[0] for _ in range(3)]
    assert [code == Errors.cudaSuccess for code in codes] == [True, False, True]
    with pytest.raises(ValueError, match="cudaMallc is not simulated"):
        gpu.fail("cudaMallc", Errors.cudaErrorMemoryAllocation)


@pytest.mark.parametrize(
    ("gpu", "code"),
    [
        (HostCuda(devices=0), Errors.cudaErrorNoDevice),
        (HostCuda(driver=12040, runtime=13000), Errors.cudaErrorInsufficientDriver),
        (HostCuda(driver=0), Errors.cudaErrorInsufficientDriver),
    ],
)
def test_without_a_gpu_or_driver_every_call_says_so(gpu: HostCuda, code: Any) -> None:
    assert gpu.cudaGetDeviceCount() == (code, None)
    assert gpu.cudaSetDevice(0) == (code,)
    assert gpu.cudaMemGetInfo() == (code, None, None)
    assert gpu.cudaDriverGetVersion() == (Errors.cudaSuccess, gpu.driver)


def test_this_machine_answers_as_the_stand_in_without_a_driver() -> None:
    if real.cudaDriverGetVersion()[1] != 0:
        pytest.skip("there is an NVIDIA driver")
    gpu = HostCuda(driver=0)
    calls: dict[str, tuple[Any, ...]] = {
        "cudaGetDeviceCount": (),
        "cudaDriverGetVersion": (),
        "cudaSetDevice": (0,),
        "cudaGetDeviceProperties": (0,),
        "cudaMemGetInfo": (),
        "cudaMalloc": (10,),
        "cudaHostAlloc": (10, 0),
        "cudaStreamCreateWithFlags": (1,),
        "cudaGetErrorName": (Errors.cudaErrorNoDevice,),
        "cudaGetErrorString": (Errors.cudaErrorNoDevice,),
    }
    for name, arguments in calls.items():
        assert getattr(gpu, name)(*arguments) == getattr(real, name)(*arguments), name


def test_it_is_imported_where_the_real_one_would_be(
    gpu: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_cuda.install(monkeypatch, gpu)
    import cuda.bindings.runtime
    from cuda.bindings import runtime

    assert cuda.bindings.runtime is runtime
    properties = ok(runtime.cudaGetDeviceProperties(0))
    assert properties.name.rstrip(b"\0") == b"Host GPU" and properties.major == 8
    assert runtime.cudaError_t is Errors
    assert not hasattr(runtime, "cudaMallocManaged")


class Log:
    """Makes a logger of one flavour, and keeps what it is told."""

    def __init__(self, trt: Any) -> None:
        lines: list[str] = []
        self.lines = lines

        class Logger(trt.ILogger):
            def log(self, severity: Any, msg: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    lines.append(msg)

        self.logger = Logger()


@pytest.fixture(params=FLAVOURS)
def host(request: pytest.FixtureRequest) -> HostTensorRt:
    gpu = HostCuda()
    ok(gpu.cudaSetDevice(0))
    return HostTensorRt(request.param, gpu)


def build(host: HostTensorRt, onnx: bytes, monitor: Any = None) -> Any:
    trt: Any = host.module
    log = Log(trt).logger
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(onnx), parser.get_error(0).desc()
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    return builder.build_serialized_network(network, config)


@pytest.fixture
def red(tmp_path: Path) -> bytes:
    return networks.red_channel(tmp_path / "red.onnx").read_bytes()


def load(host: HostTensorRt, plan: bytes) -> tuple[Any, list[str]]:
    trt: Any = host.module
    log = Log(trt)
    return trt.Runtime(log.logger).deserialize_cuda_engine(plan), log.lines


def test_a_plan_computes_what_numpy_computes(host: HostTensorRt, red: bytes) -> None:
    trt: Any = host.module
    engine, _ = load(host, bytes(build(host, red)))
    assert engine.num_io_tensors == 2
    names = [engine.get_tensor_name(i) for i in range(2)]
    modes = [engine.get_tensor_mode(name) for name in names]
    assert names == ["image", "depth"]
    assert modes == [trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT]
    assert str(engine.get_tensor_dtype("image")) == "DataType.UINT8"
    shape = engine.get_tensor_shape("depth")
    assert tuple(shape) == (1, 48, 64) and not isinstance(shape, tuple)

    gpu = host.cuda
    context, stream = engine.create_execution_context(), stream_of(gpu)
    image, image_at = pinned(gpu, [0] * (96 * 128 * 3))
    depth, depth_at = pinned(gpu, [0] * (48 * 64 * 4))
    source, result = ok(gpu.cudaMalloc(image.size)), ok(gpu.cudaMalloc(depth.size))
    assert context.set_tensor_address("image", source)
    assert not context.execute_async_v3(int(stream))
    assert context.set_tensor_address("depth", result)
    image[:] = np.random.default_rng(0).integers(0, 256, image.size)
    ok(gpu.cudaMemcpyAsync(source, image_at, image.size, TO_GPU, stream))
    assert context.execute_async_v3(int(stream))
    ok(gpu.cudaMemcpyAsync(depth_at, result, depth.size, TO_HOST, stream))
    ok(gpu.cudaStreamSynchronize(stream))
    blocks = image.reshape(48, 2, 64, 2, 3)[..., 0].astype(np.float64)
    truth = blocks.mean(axis=(1, 3)) * networks.RED_SCALE
    np.testing.assert_allclose(depth.view(np.float32).reshape(48, 64), truth, rtol=1e-5)


def test_memory_goes_with_the_last_reference(host: HostTensorRt, red: bytes) -> None:
    engine, _ = load(host, bytes(build(host, red)))
    context = engine.create_execution_context()
    assert host.cuda.live() == {"device memory": 2}
    del engine
    assert host.cuda.live() == {"device memory": 2}
    del context
    assert host.cuda.live() == {}


def test_a_context_must_outlive_its_work(host: HostTensorRt, red: bytes) -> None:
    gpu = host.cuda
    engine, _ = load(host, bytes(build(host, red)))
    context, stream = engine.create_execution_context(), stream_of(gpu)
    for name, size in (("image", 96 * 128 * 3), ("depth", 48 * 64 * 4)):
        context.set_tensor_address(name, ok(gpu.cudaMalloc(size)))
    assert context.execute_async_v3(int(stream))
    strategy = host.module.ExecutionContextAllocationStrategy.USER_MANAGED
    other = engine.create_execution_context(strategy)
    assert not other.execute_async_v3(int(stream))
    del context
    assert len(gpu.misuse) == 1 and "destroyed before its work" in gpu.misuse[0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda plan: b"not a plan" + plan, "magic tag"),
        (lambda plan: plan[:100], "Serialization"),
        (lambda plan: host_tensorrt.edited(plan, capability=89), "compute 86 got"),
        (lambda plan: host_tensorrt.edited(plan, version="9.9"), "got 9.9"),
    ],
)
def test_foreign_plans_are_refused(
    host: HostTensorRt, red: bytes, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    engine, lines = load(host, spoil(bytes(build(host, red))))
    assert engine is None and len(lines) == 1 and reason in lines[0]
    assert host.cuda.live() == {}


def test_only_tensorrt_rtx_builds_without_a_gpu(red: bytes) -> None:
    gpu = HostCuda(devices=0)
    older, rtx = HostTensorRt("tensorrt 10.3", gpu), HostTensorRt("tensorrt_rtx 1.7", gpu)
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        build(older, red)
    assert build(rtx, red) is None
    trt: Any = rtx.module
    builder = trt.Builder(Log(trt).logger)
    network, config = builder.create_network(0), builder.create_builder_config()
    assert trt.OnnxParser(network, Log(trt).logger).parse(red)
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    plan = builder.build_serialized_network(network, config)
    assert host_tensorrt.read_header(plan)["capability"] == 120


def test_a_monitor_hears_of_phases_and_can_cancel(host: HostTensorRt, red: bytes) -> None:
    trt: Any = host.module

    class Monitor(trt.IProgressMonitor):
        def __init__(self, limit: int) -> None:
            super().__init__()
            self.limit, self.steps = limit, 0
            self.open: list[str] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            assert parent_phase == (self.open[-1] if self.open else None)
            self.open.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            assert phase_name == self.open[-1]
            self.steps += 1
            return bool(self.steps < self.limit)

        def phase_finish(self, phase_name: str) -> None:
            assert self.open.pop() == phase_name

    patient, hasty = Monitor(1000), Monitor(3)
    assert build(host, red, patient) is not None and patient.open == []
    assert build(host, red, hasty) is None and hasty.steps == 3 and hasty.open == []


def test_a_uint8_input_goes_into_a_cast_only(host: HostTensorRt) -> None:
    from onnx import TensorProto, helper

    def parse(operator: str) -> Any:
        graph = helper.make_graph(
            [helper.make_node(operator, ["image"], ["y"], name="n", **more.get(operator, {}))],
            "g",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        )
        trt: Any = host.module
        log = Log(trt).logger
        parser = trt.OnnxParser(trt.Builder(log).create_network(0), log)
        return parser.parse(helper.make_model(graph).SerializeToString()), parser

    more: dict[str, dict[str, Any]] = {"Cast": {"to": TensorProto.FLOAT}}
    assert parse("Cast")[0]
    for operator in ("Transpose", "Frobnicate"):
        parsed, parser = parse(operator)
        assert not parsed and parser.num_errors == 1
        assert parser.get_error(0).node_operator() == operator
        assert parser.get_error(0).node_name() == "n"


def test_flavours_lack_what_their_real_ones_lack() -> None:
    gpu = HostCuda()
    old, new, rtx = (HostTensorRt(flavour, gpu).module for flavour in FLAVOURS)
    assert [hasattr(trt, "IRuntimeConfig") for trt in (old, new, rtx)] == [False, True, True]
    assert [hasattr(trt, "IRuntimeCache") for trt in (old, new, rtx)] == [False, False, True]
    engines = [trt.ICudaEngine.__new__(trt.ICudaEngine) for trt in (old, new, rtx)]
    assert [hasattr(e, "create_runtime_config") for e in engines] == [False, True, True]
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        engines[0].foo = 1
