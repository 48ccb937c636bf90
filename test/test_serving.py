"""What serves, and how something better takes its place: on the stand-in's GPU, with real builds in
processes of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest
from gpu_fixture import gpu_environment, put_gpu
from host_tensorrt import HostTensorRt

import mono_depth_ros.serving as serving_module
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import EngineError
from mono_depth_ros.engines.cache import open_cache
from mono_depth_ros.engines.tensorrt_plans import build
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import ModelError, read_model
from mono_depth_ros.parity import parity_images
from mono_depth_ros.serving import Choice, Serving

DEADLINE_S = 30.0
SIZE = (192, 256)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
CAMERA = CameraModel(SIZE[1], SIZE[0], 200.0, 200.0, 127.5, 95.5)


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def choice(tmp_path: Path) -> Choice:
    model = networks.convolutions(tmp_path / "net.onnx")
    return Choice(str(model), "auto", "auto", tmp_path / "cache")


@pytest.fixture
def serve(log: Log) -> Iterator[Callable[[Choice], Serving]]:
    started: list[Serving] = []

    def start(choice: Choice) -> Serving:
        started.append(Serving(choice, log.infos.append, log.warnings.append))
        return started[-1]

    yield start
    for serving in started:
        serving.close()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> HostTensorRt:
    """A GPU in this process and in those that it starts, where a build lasts a while."""
    for name, value in gpu_environment(build_s=1.0).items():
        monkeypatch.setenv(name, value)
    return put_gpu(monkeypatch)


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def engine_of(serving: Serving) -> str:
    return serving.current(SIZE).engine.describe().split()[0]


def truth(model: str) -> np.ndarray:
    estimator = DepthEstimator.open(model, "onnx")
    return estimator.estimate(IMAGE, CAMERA).depth.copy()


def answer(serving: Serving) -> np.ndarray:
    return serving.current(SIZE).estimate(IMAGE, CAMERA).depth


def build_now(choice: Choice) -> None:
    model = read_model(choice.path)
    images = list(parity_images(None, 2, SIZE))
    cache = open_cache(choice.cache_dir)
    build(model, "auto", cache, images, lambda share, phase: None, camera_size=SIZE)


def test_an_engine_that_is_built_serves_at_once(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], log: Log
) -> None:
    build_now(choice)
    serving = serve(choice)
    assert engine_of(serving) == "tensorrt" and not serving.progress
    assert not serving.warning and not log.warnings
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=2e-3)


def test_another_engine_serves_while_tensorrt_builds_and_hands_over(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], log: Log
) -> None:
    serving = serve(choice)
    assert engine_of(serving) == "openvino"
    assert "waits for the camera's first image" in serving.describe()["engines_not_taken"]
    seen: list[str] = []

    def handed_over() -> bool:
        np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=2e-3)
        if "engine_build" in serving.describe():
            seen.append(serving.describe()["engine_build"])
        return engine_of(serving) == "tensorrt"

    wait(handed_over, "tensorrt")
    percents = [int(text.split(": ")[1].split("%")[0]) for text in seen if "%" in text]
    assert percents == sorted(percents) and len(set(percents)) > 3
    assert "building the TensorRT engine of net.onnx" in seen[-1]
    assert not serving.progress and not serving.warning and not log.warnings
    assert any("takes over" in line for line in log.infos)
    # The one that served before is gone, and so is everything that it held.
    assert serving.describe()["engine"].startswith("tensorrt")
    # The next start finds what was built.
    assert engine_of(serve(choice)) == "tensorrt"


def test_a_failed_build_leaves_the_other_engine_and_says_why(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = gpu_environment(fail={"build_serialized_network": 0})
    monkeypatch.setenv("HOST_GPU", broken["HOST_GPU"])
    serving = serve(choice)
    answer(serving)
    wait(lambda: serving.warning, "warning")
    assert "out of memory" in serving.warning and "openvino" in serving.warning
    assert "\n" not in serving.warning and log.warnings == [serving.warning]
    assert engine_of(serving) == "openvino" and not serving.progress
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-4)


def test_a_build_that_is_killed_is_said(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOST_GPU", gpu_environment(build_s=60.0)["HOST_GPU"])
    serving = serve(choice)
    answer(serving)
    wait(lambda: "Measuring" in serving.progress, "build")
    assert serving._build is not None
    # What the kernel does where memory is short.
    os.kill(serving._build.pid, 9)
    wait(lambda: serving.warning, "warning")
    assert "killed by signal 9; if memory is short" in serving.warning
    assert engine_of(serving) == "openvino"


def test_closing_ends_a_build_and_its_process(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOST_GPU", gpu_environment(build_s=60.0)["HOST_GPU"])
    serving = serve(choice)
    answer(serving)
    wait(lambda: "Measuring" in serving.progress, "build")
    assert serving._build is not None
    pid = serving._build.pid
    serving.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not serving.warning and not log.warnings
    assert not [e for e in open_cache(choice.cache_dir).entries() if e.key.kind == "plan"]


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_without_a_gpu_another_engine_serves(
    choice: Choice,
    serve: Callable[[Choice], Serving],
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    put_gpu(monkeypatch, driver=0)
    serving = serve(replace(choice, engine=engine))
    assert engine_of(serving) == "openvino" and not serving.progress
    # Who asked for nothing in particular is not warned.
    warned = "no NVIDIA driver is installed" in serving.warning
    assert warned == (engine == "tensorrt") == bool(log.warnings)
    assert "no NVIDIA driver" in serving.describe()["engines_not_taken"]


def test_a_driver_that_is_too_old_is_warned_of_by_auto_too(
    choice: Choice, serve: Callable[[Choice], Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch, driver=12040)
    serving = serve(choice)
    assert "update the driver" in serving.warning and engine_of(serving) == "openvino"


def test_a_cache_that_cannot_be_used_is_warned_of(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    serving = serve(replace(choice, cache_dir=tmp_path / "file"))
    assert "cache_dir" in serving.warning and engine_of(serving) == "openvino"


@pytest.mark.parametrize("function", ["execute_async_v3", "create_execution_context"])
def test_memory_that_runs_out_leaves_depth_from_another_engine(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], log: Log, function: str
) -> None:
    build_now(choice)
    gpu.fail(function)
    # While loading.
    serving = serve(choice)
    assert engine_of(serving) == "openvino" and "out of memory" in serving.warning
    assert gpu.cuda.live() == {} and gpu.cuda.misuse == []
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-4)


def test_an_engine_that_fails_at_work_is_replaced(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], log: Log
) -> None:
    build_now(choice)
    serving = serve(choice)
    assert engine_of(serving) == "tensorrt"
    code = gpu.cuda.module().cudaError_t.cudaErrorIllegalAddress
    gpu.cuda.fail("cudaGraphLaunch", code)
    with pytest.raises(EngineError, match="cudaErrorIllegalAddress") as failure:
        answer(serving)
    substitute = serving.replace(str(failure.value))
    assert substitute is serving.current(SIZE) and engine_of(serving) == "openvino"
    assert "cudaErrorIllegalAddress" in serving.warning and log.warnings == [serving.warning]
    assert gpu.cuda.live() == {}
    # An engine that needs no GPU has no substitute.
    assert serving.replace("anything") is None


def wait_for_reload(serving: Serving) -> None:
    wait(lambda: not serving.progress, "end of the reload")


def test_another_model_takes_over_when_it_is_built_and_checked(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    build_now(choice)
    serving = serve(choice)
    old = truth(choice.model)
    np.testing.assert_allclose(answer(serving), old, rtol=2e-3)
    other = replace(choice, model=str(networks.convolutions(tmp_path / "other.onnx", seed=1)))
    new = truth(other.model)
    serving.start_reload(other)
    while serving.progress:
        # What served goes on serving.
        depth = answer(serving)
        assert np.allclose(depth, old, rtol=2e-3) or np.allclose(depth, new, rtol=2e-3)
        time.sleep(0.05)
    np.testing.assert_allclose(answer(serving), new, rtol=2e-3)
    assert engine_of(serving) == "tensorrt" and serving.choice == other and not serving.warning


def test_a_second_reload_waits_for_the_first_unless_that_is_building(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    build_now(choice)
    serving = serve(choice)
    answer(serving)
    others = [
        replace(choice, model=str(networks.convolutions(tmp_path / f"{i}.onnx", seed=i)))
        for i in (1, 2)
    ]
    serving.start_reload(others[0])
    with pytest.raises(EngineError, match="another model is being loaded"):
        serving.start_reload(others[1])
    wait(lambda: "Measuring" in serving.progress, "build")
    serving.start_reload(others[1])
    wait_for_reload(serving)
    np.testing.assert_allclose(answer(serving), truth(others[1].model), rtol=2e-3)
    assert serving.choice == others[1] and not serving.warning


def test_a_camera_of_another_size_is_served_at_once_and_gets_its_engine(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving]
) -> None:
    build_now(choice)
    serving = serve(choice)
    answer(serving)
    small = np.ascontiguousarray(IMAGE[::2, ::2])
    camera = CAMERA.scaled(SIZE[1] // 2, SIZE[0] // 2)
    reference = DepthEstimator.open(choice.model, "onnx").estimate(small, camera).depth

    def depth() -> np.ndarray:
        estimator = serving.current(small.shape[:2])
        return estimator.estimate(small, camera).depth

    np.testing.assert_allclose(depth(), reference, rtol=1e-4)
    assert serving.describe()["engine"].startswith("openvino")

    def on_gpu() -> bool:
        np.testing.assert_allclose(depth(), reference, rtol=2e-3)
        return serving.describe()["engine"].startswith("tensorrt")

    wait(on_gpu, "engine of the small camera")
    # The first camera comes back, and its engine is there.
    wait(lambda: answer(serving) is not None and engine_of(serving) == "tensorrt", "first engine")
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=2e-3)
    assert gpu.cuda.misuse == [] and not serving.warning


def test_a_model_of_wrong_answers_is_refused_and_the_old_one_serves_on(
    choice: Choice,
    serve: Callable[[Choice], Serving],
    log: Log,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mono_depth_ros.engines.openvino import OpenVinoEngine

    serving = serve(replace(choice, engine="openvino"))
    other = replace(choice, model=str(networks.convolutions(tmp_path / "other.onnx", seed=1)))
    right = OpenVinoEngine.infer
    monkeypatch.setattr(OpenVinoEngine, "infer", lambda self, image: 2 * right(self, image))
    serving.start_reload(replace(other, engine="openvino"))
    wait_for_reload(serving)
    monkeypatch.undo()
    assert "reload of other.onnx is refused" in serving.warning
    assert (
        "delta1 0.00000 is below" in serving.warning and "net.onnx on openvino" in log.warnings[0]
    )
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-4)
    assert serving.choice.model == choice.model
    # The next one that is right takes over, and takes the warning with it.
    serving.start_reload(replace(other, engine="openvino"))
    wait_for_reload(serving)
    np.testing.assert_allclose(answer(serving), truth(other.model), rtol=1e-4)
    assert not serving.warning


@pytest.mark.parametrize("content", [b"", b"no onnx"])
def test_a_file_that_is_no_model_is_refused(
    choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path, content: bytes
) -> None:
    serving = serve(replace(choice, engine="onnx"))
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such model file"):
        serving.start_reload(replace(choice, model=str(tmp_path / "nowhere.onnx")))
    with pytest.raises(ModelError, match="set the parameter model"):
        serving.start_reload(replace(choice, model=f"/{'long' * 1000}"))
    (tmp_path / "bad.onnx").write_bytes(content)
    serving.start_reload(replace(choice, model=str(tmp_path / "bad.onnx")))
    wait_for_reload(serving)
    assert "bad.onnx" in serving.warning and "net.onnx on onnxruntime" in serving.warning
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-6)


def test_closing_in_the_middle_of_a_reload_ends_it(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_now(choice)
    serving = serve(choice)
    answer(serving)
    monkeypatch.setenv("HOST_GPU", gpu_environment(build_s=60.0)["HOST_GPU"])
    other = networks.convolutions(tmp_path / "other.onnx", seed=1)
    serving.start_reload(replace(choice, model=str(other)))
    wait(lambda: "Measuring" in serving.progress, "build")
    serving.close()
    assert gpu.cuda.live() == {} and gpu.cuda.misuse == []


def test_the_model_that_was_accepted_serves_though_its_file_has_changed(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving]
) -> None:
    build_now(choice)
    serving = serve(choice)
    expected = truth(choice.model)
    networks.convolutions(choice.path, seed=1)
    assert serving.replace("a reason") is not None
    np.testing.assert_allclose(answer(serving), expected, rtol=1e-4)
    choice.path.unlink()
    np.testing.assert_allclose(answer(serving), expected, rtol=1e-4)


def test_an_engine_that_cannot_be_replaced_is_not_used_again(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_now(choice)
    serving = serve(choice)
    with monkeypatch.context() as patch:
        patch.setattr(serving_module, "CPU_ENGINES", ())
        with pytest.raises(EngineError):
            serving.replace("a reason")
    with pytest.raises(EngineError, match="the engine is closed"):
        answer(serving)
    # The next frame finds another engine.
    assert serving.replace("closed") is not None
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-4)
    assert gpu.cuda.misuse == []


def test_a_reload_that_cannot_be_does_not_end_the_build(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    serving = serve(choice)
    answer(serving)
    wait(lambda: "Measuring" in serving.progress, "build")
    with pytest.raises(ModelError):
        serving.start_reload(replace(choice, model=str(tmp_path / "nowhere.onnx")))
    wait(lambda: answer(serving) is not None and engine_of(serving) == "tensorrt", "tensorrt")


def test_a_build_that_a_refused_reload_ended_starts_again(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    serving = serve(choice)
    answer(serving)
    wait(lambda: "Measuring" in serving.progress, "build")
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    serving.start_reload(replace(choice, model=str(tmp_path / "bad.onnx")))
    wait(lambda: serving.warning, "refusal")
    wait(lambda: answer(serving) is not None and engine_of(serving) == "tensorrt", "tensorrt")
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=2e-3)


def test_a_gpu_without_room_for_another_model_keeps_the_one_that_works(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving], tmp_path: Path
) -> None:
    build_now(choice)
    serving = serve(choice)
    answer(serving)
    other = replace(choice, model=str(networks.convolutions(tmp_path / "other.onnx", seed=1)))
    build_now(other)
    gpu.fail("create_execution_context")
    serving.start_reload(other)
    wait_for_reload(serving)
    assert "reload of other.onnx is refused" in serving.warning
    assert "out of memory" in serving.warning and engine_of(serving) == "tensorrt"
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=2e-3)


def test_a_camera_that_changes_while_its_engine_is_built_gets_one_of_its_new_size(
    gpu: HostTensorRt, choice: Choice, serve: Callable[[Choice], Serving]
) -> None:
    serving = serve(choice)
    answer(serving)
    wait(lambda: "Measuring" in serving.progress, "build")
    small = np.ascontiguousarray(IMAGE[::2, ::2])
    camera = CAMERA.scaled(SIZE[1] // 2, SIZE[0] // 2)
    reference = DepthEstimator.open(choice.model, "onnx").estimate(small, camera).depth
    sizes: list[object] = []

    def on_gpu() -> bool:
        estimator = serving.current((SIZE[0] // 2, SIZE[1] // 2))
        np.testing.assert_allclose(estimator.estimate(small, camera).depth, reference, rtol=2e-3)
        sizes.append(estimator.engine.camera_size)
        return sizes[-1] is not None

    wait(on_gpu, "engine of the new size")
    assert set(sizes) == {None, (SIZE[0] // 2, SIZE[1] // 2)}
    assert gpu.cuda.misuse == [] and not serving.warning


def test_whatever_goes_wrong_in_the_background_is_warned_of(
    gpu: HostTensorRt,
    choice: Choice,
    serve: Callable[[Choice], Serving],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_process(*arguments: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(serving_module, "BackgroundBuild", no_process)
    serving = serve(choice)
    answer(serving)
    wait(lambda: serving.warning, "warning")
    assert "no more processes" in serving.warning
    serving.start_reload(replace(choice, precision="float16"))
    wait(lambda: "is refused" in serving.warning, "refusal")
    np.testing.assert_allclose(answer(serving), truth(choice.model), rtol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_another_precision_than_was_asked_for_is_warned_of(
    choice: Choice,
    serve: Callable[[Choice], Serving],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    put_gpu(monkeypatch, driver=0)
    serving = serve(replace(choice, precision=precision))
    assert f"precision {precision}" in serving.warning
    assert serving.describe()["engine"].endswith("f32")
