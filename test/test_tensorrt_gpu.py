"""TensorRT on a real GPU, where there is one: everything else about it is tested without."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import networks
import numpy as np
import pytest

from mono_depth_ros.engines import EngineError, open_engine
from mono_depth_ros.engines.cache import EngineCache, open_cache
from mono_depth_ros.engines.calibrated import calibrate
from mono_depth_ros.engines.cuda import Gpu
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.tensorrt import TensorRtEngine
from mono_depth_ros.engines.tensorrt_library import libraries
from mono_depth_ros.engines.tensorrt_plans import build, open_plan
from mono_depth_ros.model import default_model, read_model
from mono_depth_ros.parity import TOLERANCES, parity, parity_images


def missing() -> str:
    """Why nothing can be run on a GPU here; empty where it can."""
    try:
        Gpu()
        libraries()
    except EngineError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a GPU")
CAMERA_SIZE = (480, 640)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return open_cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("camera_size", [None, CAMERA_SIZE])
def test_the_shipped_network_computes_what_onnx_runtime_does(
    cache: EngineCache, precision: str, camera_size: tuple[int, int] | None
) -> None:
    from mono_depth_ros.camera_graph import with_camera

    model = read_model(default_model())
    network_size = (model.metadata.height, model.metadata.width)
    images = list(parity_images(None, 6, network_size))
    if precision == "int8":
        calibrate(model, images, cache)
    report = lambda share, phase: None  # noqa: E731
    plan = build(model, precision, cache, images, report, camera_size=camera_size)
    assert plan.built and plan.precision == precision
    place = cache.directory.parent
    whole = with_camera(model, *camera_size) if camera_size else model
    with (
        closing(open_plan(model, precision, place, camera_size)) as engine,
        closing(OnnxEngine(whole, "auto", None)) as reference,
    ):
        assert isinstance(engine, TensorRtEngine) and "CUDA graph" in engine.describe()
        assert engine.gpu_bytes > 0
        agreement = parity(engine, reference, images)
    assert agreement.faults(*TOLERANCES[precision]) == []


def test_every_thread_gets_the_answer_to_its_own_image(cache: EngineCache, tmp_path: Path) -> None:
    model = read_model(networks.convolutions(tmp_path / "net.onnx"))
    shape = (model.metadata.height, model.metadata.width, 3)
    images = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in range(6)]
    build(model, "float32", cache, images, lambda share, phase: None)
    reference = open_engine(model.path, "onnx")
    answers: list[np.ndarray] = []
    with closing(open_plan(model, "float32", cache.directory.parent)) as engine:
        for image in images:
            thread = threading.Thread(target=lambda x=image: answers.append(engine.infer(x).copy()))
            thread.start()
            thread.join()
    for image, answer in zip(images, answers, strict=True):
        # TensorFloat-32 has ten bits, as float16 has.
        np.testing.assert_allclose(answer, reference.infer(image), rtol=5e-3)
