"""Validation: engines that agree, that differ by a known amount, and that are broken."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import networks
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

# training/ reads data sets with what only training installs.
pytest.importorskip("torch")

from mono_depth_ros.camera import CameraModel
from training import validate
from training.data.folder import write_pair, write_settings
from training.spread import spread

HEIGHT, WIDTH = networks.HEIGHT, networks.WIDTH
METRES_PER_LEVEL = networks.RED_SCALE


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten images, whose red is twenty times their number, and a file of notes."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(10):
        image = np.full((60, 80, 3), (0, 0, 20 * (i + 1)), np.uint8)
        cv2.imwrite(str(folder / f"photo{i + 1}.png"), image)
    (folder / "notes.txt").write_text("a desk")
    return folder


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.red_channel(tmp_path_factory.mktemp("red") / "red.onnx")


def run(model: Path, photos: Path, out: Path, *options: str) -> tuple[int, dict[str, object]]:
    """Exit status and the JSON document; an empty one where nothing was compared."""
    arguments = [str(model), "--images", str(photos), *options, "--json", str(out)]
    status = validate.main(arguments)
    return status, json.loads(out.read_text()) if out.exists() else {}


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_engine_agrees_with_the_reference(
    red: Path, photos: Path, tmp_path: Path, engine: str
) -> None:
    status, document = run(red, photos, tmp_path / "out" / "r.json", "--engine", engine)
    assert status == 0
    assert document["faults"] == []
    agreement = document["agreement"]
    assert isinstance(agreement, dict)
    assert agreement["images"] == 10
    assert agreement["abs_rel"] < 1e-5 and agreement["delta1"] == 1


def test_a_network_that_differs_is_found_out(
    red: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = networks.red_channel(tmp_path / "other.onnx", factor=1.02 * METRES_PER_LEVEL)
    out = tmp_path / "r.json"
    status, document = run(other, photos, out, "--reference", str(red))
    assert status == 1
    assert isinstance(document["agreement"], dict)
    assert document["agreement"]["abs_rel"] == pytest.approx(0.02, rel=1e-4)
    assert document["agreement"]["max_rel"] == pytest.approx(0.02, rel=1e-4)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("training.validate: ") and "abs_rel 2.00e-02 is above 0.005" in error
    # Somebody who knows may allow more.
    assert run(other, photos, out, "--reference", str(red), "--max-abs-rel", "0.03")[0] == 0


def test_few_pixels_that_are_far_off_are_found_out(red: Path, photos: Path, tmp_path: Path) -> None:
    """One pixel in 300 at double distance: the mean would hide it."""
    model = onnx.load(red)
    where = np.ones((1, HEIGHT // 2, WIDTH // 2), np.float32)
    where.flat[::300] = 2
    model.graph.initializer.append(onnx.numpy_helper.from_array(where, "where"))
    model.graph.node[-1].output[0] = "right"
    model.graph.node.append(onnx.helper.make_node("Mul", ["right", "where"], ["depth"]))
    onnx.save(model, tmp_path / "holes.onnx")
    options: tuple[str, ...] = ("--reference", str(red), "--engine", "onnx")
    status, document = run(tmp_path / "holes.onnx", photos, tmp_path / "r.json", *options)
    assert status == 1
    assert isinstance(document["faults"], list)
    assert len(document["faults"]) == 1 and "delta1" in document["faults"][0]
    options = (*options, "--min-delta1", "0.9")
    assert run(tmp_path / "holes.onnx", photos, tmp_path / "r.json", *options)[0] == 0


def test_values_that_are_not_finite_are_found_out(red: Path, tmp_path: Path) -> None:
    """The network divides by the red channel, of which one image has none on the left."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = np.full((HEIGHT, WIDTH, 3), (0, 0, 25), np.uint8)
    cv2.imwrite(str(folder / "1.png"), image)
    image[:, : WIDTH // 2] = 0
    cv2.imwrite(str(folder / "2.png"), image)
    ones = networks.red_channel(tmp_path / "ones.onnx", factor=1 / 25)
    broken = networks.not_finite(tmp_path / "broken.onnx")
    plain, document = run(broken, folder, tmp_path / "r.json", "--reference", str(ones))
    # Where the reference has no depth either there is nothing to be faithful to.
    assert plain == 0 and isinstance(document["agreement"], dict)
    shifted = onnx.load(ones)
    shifted.graph.node[-2].op_type = "Add"
    onnx.save(shifted, tmp_path / "shifted.onnx")
    reference = str(tmp_path / "shifted.onnx")
    status, document = run(broken, folder, tmp_path / "r.json", "--reference", reference)
    assert status == 1 and isinstance(document["agreement"], dict)
    assert document["agreement"]["non_finite"] == HEIGHT // 2 * WIDTH // 4


def test_networks_of_different_sizes_cannot_be_compared(
    red: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(red)
    document = networks.document(focal=2 * networks.FOCAL)
    onnx.helper.set_model_props(model, {"mono_depth": json.dumps(document)})
    onnx.save(model, tmp_path / "other.onnx")
    status, _ = run(tmp_path / "other.onnx", photos, tmp_path / "r.json", "--reference", str(red))
    assert status == 1
    assert "200.0 px" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--reference", "none.onnx"), "none.onnx"),
        (("--reference", "text.onnx"), "text.onnx"),
        (("--images", "nowhere"), "nowhere"),
        (("--images", "empty"), "empty"),
        (("--images", "broken"), "1.png"),
        (("--engine", "onnx", "--precision", "bfloat16"), "bfloat16"),
        (("--limit", "0"), "0 of 10"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    red: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "1.png").write_text("hello")
    assert validate.main([str(red), "--images", str(photos), *options]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("training.validate: ") and text in line


# --- images --------------------------------------------------------------------------------------


def reds(path: Path, count: int) -> list[int]:
    return [int(image[0, 0, 0]) // 20 for image in validate.read_images(path, count)]


def test_images_are_spread_over_a_folder_in_natural_order(photos: Path) -> None:
    assert reds(photos, 100) == list(range(1, 11))
    assert reds(photos, 5) == [2, 4, 6, 8, 10]
    assert reds(photos, 1) == [6]


def test_images_come_from_data_sets_too(tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    for i in range(4):
        image = np.full((24, 32, 3), (20 * i + 5, 0, 0), np.uint8)
        write_pair(folder, f"{i}", image, np.ones((24, 32), np.float32))
    write_settings(folder, 1e-3, CameraModel.from_hfov(32, 24, 60))
    assert reds(folder, 2) == [1, 3]


@given(st.integers(1, 200), st.integers(1, 60))
def test_a_spread_covers_the_whole_evenly(length: int, count: int) -> None:
    chosen = spread(range(length), count)
    assert len(chosen) == min(count, length)
    steps = np.diff([-1, *chosen, length])
    assert steps.min() >= 1
    if count < length:
        # No gap is longer than a part, apart from rounding.
        assert steps.max() <= length / count + 1


def test_a_spread_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of 3"):
        spread("abc", 0)
    assert spread("abc", None) == ["a", "b", "c"]
