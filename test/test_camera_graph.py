"""The steps around a network as part of its graph, held to those that `DepthEstimator` takes."""

from __future__ import annotations

from pathlib import Path

import cv2
import networks
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.camera_graph import area_weights, enlarging_weights, with_camera
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import default_model, read_model
from mono_depth_ros.parity import parity_images

SIZES = [(480, 640), (240, 320), (720, 1280), (360, 640), (250, 330), (120, 160), (240, 200)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_rows_are_resized_as_opencv_does(source: int, target: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (source, 4, 3), np.uint8)
    weights = (enlarging_weights if target > source else area_weights)(source, target)
    ours = np.einsum("ij,jkc->ikc", weights, image)
    opencv = cv2.resize(image, (4, target), interpolation=cv2.INTER_AREA)
    # It rounds, and where it enlarges it computes with eleven bits.
    np.testing.assert_allclose(ours, opencv.reshape(target, 4, 3), atol=1.0)


@pytest.mark.parametrize("size", SIZES)
def test_the_graph_answers_what_the_estimator_does(size: tuple[int, int]) -> None:
    model = read_model(default_model())
    height, width = size
    bare, whole = (
        DepthEstimator(OnnxEngine(m, "auto", None)) for m in (model, with_camera(model, *size))
    )
    assert whole.engine.input_spec.shape == (1, height, width, 3)
    assert whole.engine.output_spec.shape == (1, height, width)
    camera = CameraModel.from_hfov(width, height, 65.0)
    for image in parity_images(None, 2, size):
        expected = bare.estimate(image, camera).depth
        depth = whole.estimate(image, camera).depth
        assert np.isfinite(expected).all()
        error = np.abs(depth / expected - 1)
        # Another rounding of the network's input changes its answer a little, and moves a few
        # pixels beside an edge to the other side of it.
        assert np.median(error) < 2e-3 and (error > 0.02).mean() < 5e-3


def test_sizes_that_opencv_sums_exactly_give_the_same_depth() -> None:
    model = read_model(default_model())
    for size in ((480, 640), (240, 320)):
        bare, whole = (OnnxEngine(m, "auto", None) for m in (model, with_camera(model, *size)))
        camera = CameraModel.from_hfov(size[1], size[0], 65.0)
        for image in parity_images(None, 3, size):
            expected = DepthEstimator(bare).estimate(image, camera).depth
            depth = DepthEstimator(whole).estimate(image, camera).depth
            np.testing.assert_allclose(depth, expected, rtol=1e-5)


def test_edges_stay_where_the_image_has_them(tmp_path: Path) -> None:
    """A near square before a far wall: no depth between the two, and its outline to the pixel."""
    model = read_model(networks.red_channel(tmp_path / "red.onnx"))
    engine = OnnxEngine(with_camera(model, 384, 512), "auto", None)
    image = np.zeros((384, 512, 3), np.uint8)
    image[..., 0] = 200
    image[104:248, 136:328] = (50, 200, 90)
    depth = engine.infer(image)
    near, far = 50 * networks.RED_SCALE, 200 * networks.RED_SCALE
    np.testing.assert_allclose(np.unique(depth.round(4)), [near, far], rtol=1e-4)
    np.testing.assert_array_equal(depth < (near + far) / 2, image[..., 0] == 50)


def test_what_is_not_finite_in_the_network_is_not_in_the_answer(tmp_path: Path) -> None:
    model = read_model(networks.not_finite(tmp_path / "nan.onnx"))
    engine = OnnxEngine(with_camera(model, 192, 256), "auto", None)
    image = np.full((192, 256, 3), 100, np.uint8)
    image[64:128, 64:128, 0] = 0
    depth = engine.infer(image)
    assert np.isnan(depth[80:112, 80:112]).all() and np.isfinite(depth[:32]).all()


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    model = read_model(networks.convolutions(tmp_path / "net.onnx"))
    estimator = DepthEstimator(OnnxEngine(with_camera(model, 192, 256), "auto", None))
    camera = CameraModel.from_hfov(320, 240, 60.0)
    with pytest.raises(ValueError, match=r"the network takes contiguous uint8 \(192, 256, 3\)"):
        estimator.estimate(np.zeros((240, 320, 3), np.uint8), camera)


def test_the_graph_is_valid_and_bytes_go_into_a_cast(tmp_path: Path) -> None:
    model = with_camera(read_model(networks.convolutions(tmp_path / "net.onnx")), 100, 150)
    proto = onnx.load_model_from_string(model.onnx)
    onnx.checker.check_model(proto, full_check=True)
    users = [node.op_type for node in proto.graph.node if proto.graph.input[0].name in node.input]
    assert users == ["Cast"] and model.camera_size == (100, 150)
