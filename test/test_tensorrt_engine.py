"""The TensorRT engine on a GPU that is simulated: its calls, their order, and what happens when
they fail. What networks compute on a real GPU is not tested here.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import host_cuda
import host_tensorrt
import networks
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from host_cuda import HostCuda, real
from host_tensorrt import FLAVOURS, HostTensorRt

from mono_depth_ros.engines import EngineError, NotBuiltError, UnavailableError, open_engine
from mono_depth_ros.engines.cache import open_cache
from mono_depth_ros.engines.cuda import Gpu
from mono_depth_ros.engines.tensorrt import TensorRtEngine
from mono_depth_ros.engines.tensorrt_build import build_plan
from mono_depth_ros.engines.tensorrt_library import libraries
from mono_depth_ros.engines.tensorrt_plans import build
from mono_depth_ros.model import DepthModel, default_model, read_model

Errors = real.cudaError_t
OUT_OF_MEMORY = Errors.cudaErrorMemoryAllocation
# All that a frame may call: nothing that allocates, records or asks.
PER_FRAME = ["cudaSetDevice", "cudaGraphLaunch", "cudaStreamSynchronize"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCuda]:
    """The simulated GPU; at the end of a test nothing on it may have been misused or be left."""
    gpu = HostCuda()
    host_cuda.install(monkeypatch, gpu)
    yield gpu
    gc.collect()
    assert gpu.misuse == []
    assert gpu.live() == {}


@pytest.fixture(params=FLAVOURS)
def host(
    request: pytest.FixtureRequest, gpu: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> HostTensorRt:
    host = HostTensorRt(request.param, gpu)
    host_tensorrt.install(monkeypatch, host)
    return host


@pytest.fixture
def rtx(gpu: HostCuda, monkeypatch: pytest.MonkeyPatch) -> HostTensorRt:
    host = HostTensorRt("tensorrt_rtx 1.7", gpu)
    host_tensorrt.install(monkeypatch, host)
    return host


@pytest.fixture
def red(tmp_path: Path) -> DepthModel:
    return read_model(networks.red_channel(tmp_path / "red.onnx"))


def silent(share: float, phase: str) -> None:
    """Nobody looks at the progress."""


def plan_of(model: DepthModel) -> bytes:
    return build_plan(libraries()[0], model.onnx, str(model.path), silent).plan


def load(model: DepthModel, plan: bytes | None = None, compiled: bytes = b"") -> TensorRtEngine:
    plan = plan or plan_of(model)
    return TensorRtEngine(libraries()[0], Gpu(), plan, model, "float32", compiled)


def image_of(seed: int) -> npt.NDArray[np.uint8]:
    shape = (networks.HEIGHT, networks.WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def truth(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    blocks = image[..., 0].reshape(48, 2, 64, 2).astype(np.float64)
    result: npt.NDArray[np.float64] = blocks.mean(axis=(1, 3)) * networks.RED_SCALE
    return result


def check(engine: TensorRtEngine, seed: int) -> None:
    np.testing.assert_allclose(engine.infer(image_of(seed)), truth(image_of(seed)), rtol=1e-5)


def refusal(work: Callable[[], Any]) -> str:
    """What an EngineError says; the error itself, whose traceback holds objects, is let go."""
    try:
        work()
    except EngineError as error:
        return str(error)
    pytest.fail("nothing was refused")


def test_answers_what_numpy_computes_frame_after_frame(host: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    assert engine.input_spec.shape == (1, 96, 128, 3) and engine.input_spec.dtype == "uint8"
    assert engine.output_spec.shape == (1, 48, 64) and engine.output_spec.dtype == "float32"
    for seed in range(3):
        check(engine, seed)
    assert np.ptp([truth(image_of(seed))[0, 0] for seed in range(3)]) > 1
    description = engine.describe()
    assert host.version in description and "Host GPU" in description and "f32" in description
    engine.close()


def test_a_frame_is_recorded_once_and_replayed(host: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    calls = host.cuda.calls
    assert calls.count("cudaStreamBeginCapture") == 1 and "cudaGraphLaunch" not in calls
    assert "CUDA graph" in engine.describe()
    for seed in range(3):
        calls.clear()
        check(engine, seed)
        assert calls == PER_FRAME
    engine.close()


def test_the_same_memory_holds_every_answer(rtx: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    first, second = engine.infer(image_of(0)), engine.infer(image_of(1))
    assert np.shares_memory(first, second)
    engine.close()


def test_any_thread_may_ask_and_any_may_close(rtx: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    failures: list[BaseException] = []

    def ask(seed: int) -> None:
        try:
            if seed < 3:
                check(engine, seed)
            else:
                engine.close()
        except BaseException as error:
            failures.append(error)

    for seed in range(4):
        thread = threading.Thread(target=ask, args=(seed,))
        thread.start()
        thread.join()
    assert failures == []
    assert rtx.cuda.live() == {}


def test_closing_frees_everything_and_may_be_repeated(host: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    assert host.cuda.live() == {
        # Weights, scratch, input and output.
        "device memory": 4,
        "pinned memory": 2,
        "streams": 1,
        "graph executables": 1,
    }
    assert engine.gpu_bytes == host.cuda.used() > 0
    engine.close()
    assert host.cuda.live() == {}
    engine.close()


@pytest.mark.parametrize(
    "call", ["cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaMemcpyAsync",
             "cudaStreamSynchronize", "cudaSetDevice", "cudaMemGetInfo"]
)  # fmt: skip
def test_lack_of_memory_in_any_call_of_cuda_is_one_line_and_leaks_nothing(
    rtx: HostTensorRt, red: DepthModel, call: str
) -> None:
    gpu, plan = rtx.cuda, plan_of(red)
    for n in range(100):
        gpu.fail(call, OUT_OF_MEMORY, after=n)
        try:
            engine = load(red, plan)
        except EngineError as error:
            text = str(error)
            assert text.startswith("out of GPU memory; ") and "\n" not in text
        else:
            done = gpu.clear_faults() == 1
            check(engine, n)
            engine.close()
            if done:
                break
        gc.collect()
        assert gpu.live() == {} and gpu.misuse == []
    assert 0 < n < 99


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture",
                                  "cudaGraphInstantiate"])  # fmt: skip
def test_what_cannot_be_recorded_runs_all_the_same(
    rtx: HostTensorRt, red: DepthModel, call: str
) -> None:
    plan = plan_of(red)
    rtx.cuda.fail(call, Errors.cudaErrorStreamCaptureUnsupported)
    engine = load(red, plan)
    assert "CUDA graph" not in engine.describe()
    for seed in range(2):
        check(engine, seed)
    engine.close()


def test_a_plan_that_allocates_is_not_recorded(rtx: HostTensorRt, red: DepthModel) -> None:
    plan = host_tensorrt.edited(plan_of(red), user_allocation=False)
    engine = load(red, plan)
    assert "CUDA graph" not in engine.describe()
    check(engine, 0)
    engine.close()


@pytest.mark.parametrize(
    "call", ["deserialize_cuda_engine", "create_execution_context", "execute_async_v3"]
)
def test_lack_of_memory_in_tensorrt_is_one_line_and_leaks_nothing(
    host: HostTensorRt, red: DepthModel, call: str
) -> None:
    plan = plan_of(red)
    host.fail(call)
    text = refusal(lambda: load(red, plan))
    assert "out of memory" in text and host.version in text and "\n" not in text
    gc.collect()
    assert host.cuda.live() == {}


def test_a_runtime_that_does_not_start_is_an_engine_error(
    host: HostTensorRt, red: DepthModel
) -> None:
    plan = plan_of(red)
    host.fail("Runtime")
    text = refusal(lambda: load(red, plan))
    assert host.version in text and "\n" not in text


@pytest.mark.parametrize("call", ["cudaGraphLaunch", "cudaStreamSynchronize"])
def test_a_frame_that_fails_is_an_engine_error_and_the_next_may_work(
    rtx: HostTensorRt, red: DepthModel, call: str
) -> None:
    engine = load(red)
    rtx.cuda.fail(call, OUT_OF_MEMORY)
    assert refusal(lambda: engine.infer(image_of(0))).startswith("out of GPU memory")
    check(engine, 1)
    rtx.cuda.fail(call, Errors.cudaErrorLaunchFailure)
    assert "cudaErrorLaunchFailure" in refusal(lambda: engine.infer(image_of(0)))
    engine.close()


def test_an_engine_that_failed_without_a_graph_can_be_closed(
    rtx: HostTensorRt, red: DepthModel
) -> None:
    plan = host_tensorrt.edited(plan_of(red), user_allocation=False)
    engine = load(red, plan)
    rtx.cuda.fail("cudaMemcpyAsync", Errors.cudaErrorLaunchFailure, after=1)
    assert "cudaErrorLaunchFailure" in refusal(lambda: engine.infer(image_of(0)))
    # The network is queued, and the context that it needs must not go before it is done.
    engine.close()


def test_wrong_images_are_refused(rtx: HostTensorRt, red: DepthModel) -> None:
    engine = load(red)
    for shape, kind in (((95, 128, 3), np.uint8), ((96, 128, 3), np.float32)):
        with pytest.raises(ValueError, match="the network takes contiguous uint8"):
            engine.infer(np.zeros(shape, kind))
    check(engine, 0)
    engine.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda plan: b"garbage" + plan, "magic tag"),
        (lambda plan: plan[: len(plan) // 2], "Serialization"),
        (lambda plan: host_tensorrt.edited(plan, capability=89), "compute 86 got"),
        (lambda plan: host_tensorrt.edited(plan, version="9.9"), "got 9.9"),
    ],
)
def test_a_plan_that_is_not_for_here_is_refused(
    host: HostTensorRt, red: DepthModel, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    plan = spoil(plan_of(red))
    text = refusal(lambda: load(red, plan))
    assert reason in text and red.path.name in text and "\n" not in text


def test_kernels_are_compiled_once_for_a_driver(rtx: HostTensorRt, red: DepthModel) -> None:
    plan = plan_of(red)
    first = load(red, plan)
    assert rtx.compiled == 1 and first.compiled
    second = load(red, plan, first.compiled)
    assert rtx.compiled == 1 and second.compiled == first.compiled
    rtx.cuda.driver = 13010
    third = load(red, plan, first.compiled)
    assert rtx.compiled == 2 and third.compiled != first.compiled
    for engine in (first, second, third):
        check(engine, 0)
        engine.close()


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ({"devices": 0}, UnavailableError, "finds no NVIDIA GPU"),
        ({"driver": 0}, UnavailableError, "no NVIDIA driver is installed"),
        (
            {"driver": 12040},
            EngineError,
            "the NVIDIA driver supports CUDA 12.4, cuda-python is for 13.0",
        ),
    ],
)
def test_without_a_gpu_or_driver_the_reason_is_one_line(
    rtx: HostTensorRt, red: DepthModel, state: dict[str, int], kind: type, words: str
) -> None:
    vars(rtx.cuda).update(state)
    with pytest.raises(kind) as error:
        open_engine(red.path, "tensorrt")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_without_cuda_python_the_reason_is_one_line(
    red: DepthModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(UnavailableError, match=r"^tensorrt: cuda-python is not installed"):
        open_engine(red.path, "tensorrt")


def test_without_tensorrt_the_reason_is_one_line(
    gpu: HostCuda, red: DepthModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_tensorrt.install(monkeypatch)
    with pytest.raises(UnavailableError, match="TensorRT is not installed") as error:
        open_engine(red.path, "tensorrt")
    assert "TensorRT-RTX is not installed" in str(error.value) and "\n" not in str(error.value)


def test_the_plan_is_strongly_typed(host: HostTensorRt, red: DepthModel) -> None:
    header = host_tensorrt.read_header(plan_of(red))
    assert header["strongly_typed"] is True and header["onnx"] == red.onnx


def test_progress_only_grows_and_an_interrupt_ends_the_build(
    host: HostTensorRt, red: DepthModel
) -> None:
    shares: list[float] = []
    build_plan(libraries()[0], red.onnx, "red", lambda share, phase: shares.append(share))
    assert shares == sorted(shares) and shares[0] == 0 and 0.6 < shares[-1] <= 1
    heard: list[str] = []

    def interrupt(share: float, phase: str) -> None:
        heard.append(phase)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(libraries()[0], red.onnx, "red", interrupt)
    assert len(heard) < len(shares)


def test_lack_of_memory_in_a_build_is_one_line(host: HostTensorRt, red: DepthModel) -> None:
    host.fail("build_serialized_network")
    text = refusal(lambda: build_plan(libraries()[0], red.onnx, "red.onnx", silent))
    assert "out of memory" in text and "red.onnx" in text and "\n" not in text


def test_a_builder_that_does_not_start_is_an_engine_error(
    host: HostTensorRt, red: DepthModel
) -> None:
    host.fail("Builder")
    text = refusal(lambda: build_plan(libraries()[0], red.onnx, "red.onnx", silent))
    assert host.version in text and "\n" not in text


def test_an_unknown_operator_is_named(host: HostTensorRt, red: DepthModel) -> None:
    proto = onnx.load_model_from_string(red.onnx)
    proto.graph.node[1].op_type = "Frobnicate"
    content = proto.SerializeToString()
    text = refusal(lambda: build_plan(libraries()[0], content, "red.onnx", silent))
    assert "red.onnx" in text and "Frobnicate" in text and "\n" not in text
    text = refusal(lambda: build_plan(libraries()[0], b"garbage", "red.onnx", silent))
    assert "red.onnx" in text and "\n" not in text


def test_measurements_of_a_build_serve_the_next(
    gpu: HostCuda, red: DepthModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_tensorrt.install(monkeypatch, HostTensorRt("tensorrt 10.3", gpu))
    Gpu().use()
    for given in (b"", b"from elsewhere"):
        built = build_plan(libraries()[0], red.onnx, "red", silent, timing_cache=given)
        assert built.timing_cache.endswith(b"1]")
    built = build_plan(libraries()[0], red.onnx, "red", silent, timing_cache=built.timing_cache)
    assert built.timing_cache.endswith(b"2]")
    # Those of another version are no use.
    host_tensorrt.install(monkeypatch, HostTensorRt("tensorrt 11.4", gpu))
    built = build_plan(libraries()[0], red.onnx, "red", silent, timing_cache=built.timing_cache)
    assert built.timing_cache.startswith(b'HTIM["11.4') and built.timing_cache.endswith(b"1]")


def test_only_tensorrt_rtx_builds_for_a_gpu_that_is_not_there(
    host: HostTensorRt, red: DepthModel
) -> None:
    host.cuda.devices = 0

    def work(target: str) -> bytes:
        return build_plan(libraries()[0], red.onnx, "red", silent, target).plan

    if host.flavour == "tensorrt_rtx 1.7":
        assert host_tensorrt.read_header(work("sm120"))["capability"] == 120
        assert "builds for sm75" in refusal(lambda: work("sm90"))
    else:
        assert "\n" not in refusal(lambda: work("sm86"))


def test_a_plan_is_built_kept_found_and_made_again_after_an_upgrade(
    host: HostTensorRt, tmp_path: Path
) -> None:
    model, folder = read_model(default_model()), tmp_path / "cache"
    height, width = model.metadata.height, model.metadata.width
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with pytest.raises(NotBuiltError, match="run build_engine"):
        open_engine(model.path, "tensorrt", "float32", folder)
    first = build(model, "float32", open_cache(folder), [image], silent)
    again = build(model, "float32", open_cache(folder), [image], silent)
    assert first.built and not again.built and first.path == again.path
    engine = open_engine(model.path, "tensorrt", "float32", folder)
    reference = open_engine(model.path, "onnx")
    np.testing.assert_allclose(engine.infer(image), reference.infer(image), rtol=1e-4)
    engine.close()
    reference.close()
    for change in ({"name": "Other GPU"}, {"driver": 13010}):
        before = {key: getattr(host.cuda, key) for key in change}
        vars(host.cuda).update(change)
        with pytest.raises(NotBuiltError):
            open_engine(model.path, "tensorrt", "float32", folder)
        vars(host.cuda).update(before)
    open_engine(model.path, "tensorrt", "float32", folder).close()
    host.module.__dict__["__version__"] = "99.0"
    with pytest.raises(NotBuiltError):
        open_engine(model.path, "tensorrt", "float32", folder)
