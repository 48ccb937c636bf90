"""Evaluation: known networks on known depth, what is written down, and the pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest

# A robot has no torch, and needs none.
torch = pytest.importorskip("torch")

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import EngineError
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import default_model, read_metadata
from training import evaluate
from training.checkpoint import CheckpointInfo, save_weights
from training.data import nyu
from training.data.folder import write_settings
from training.data.pair import Pair
from training.data.sources import open_frames
from training.evaluation_panel import colour_range, contact_sheet, draw_panel
from training.models import build_unet
from training.protocols import PROTOCOLS
from training.torch_engine import TorchEngine

HEIGHT, WIDTH = networks.HEIGHT, networks.WIDTH
CAMERA = CameraModel(WIDTH, HEIGHT, networks.FOCAL, networks.FOCAL, 63.5, 47.5)
# The red-channel network's answer to the images of `desk`: red times this.
METRES_PER_LEVEL = 0.02


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def write_desk(root: Path, ratios: list[float]) -> Path:
    """Frames of one colour, whose red channel is wrong by a known ratio to the depth.

    Frame i says its number in green, which the network ignores.
    """
    folder = root / "desk"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i, ratio in enumerate(ratios):
        red = 100
        image = np.full((HEIGHT, WIDTH, 3), (0, 5 * i, red), np.uint8)  # BGR
        truth = np.full((HEIGHT, WIDTH), red * METRES_PER_LEVEL / ratio * 1e4, np.uint16)
        cv2.imwrite(str(folder / "rgb" / f"{i:02d}.png"), image)
        cv2.imwrite(str(folder / "depth" / f"{i:02d}.png"), truth)
    write_settings(folder, 1e-4, CAMERA)
    return folder


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("red") / "red.onnx"
    return networks.red_channel(path, factor=METRES_PER_LEVEL)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network for 64x96 images."""
    torch.manual_seed(3)
    network = build_unet("mobilenetv2-unet").train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 96))
        # A trained head says much more than a fresh one.
        network.head.weight *= 10
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    save_weights(
        network, CheckpointInfo("mobilenetv2-unet", "log", 64, 96, 80.0, 82.0, ["r"], {}), path
    )
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- figures -------------------------------------------------------------------------------------


def test_figures_of_a_folder_are_those_worked_out_by_hand(red: Path, tmp_path: Path) -> None:
    desk = write_desk(tmp_path, [1.1, 1.1, 0.8])
    table, result = tmp_path / "rows.csv", tmp_path / "out" / "result.json"
    arguments = [str(red), "--data", str(desk), "--engine", "onnx"]
    arguments += ["--csv", str(table), "--json", str(result)]
    assert evaluate.main(arguments) == 0
    assert evaluate.main(arguments) == 0
    first, second = rows_of(table)
    assert first == second
    assert (first["model"], first["data"], first["protocol"]) == ("red.onnx", "desk", "native")
    assert (first["images"], first["split"]) == ("3", "test")
    assert float(first["abs_rel"]) == pytest.approx((0.1 + 0.1 + 0.2) / 3, abs=2e-4)
    errors = [2 - 2 / 1.1, 2 - 2 / 1.1, 2.5 - 2]
    assert float(first["rmse"]) == pytest.approx(np.mean(errors), abs=2e-4)
    assert float(first["rmse_pooled"]) == pytest.approx(
        np.sqrt(np.mean(np.square(errors))), abs=2e-4
    )
    assert float(first["delta1"]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(first["scale_bias"]) == pytest.approx(1.1, abs=2e-4)
    assert "red.onnx --data" in first["command"]
    document = json.loads(result.read_text())
    assert document["metrics"]["native"]["abs_rel"] == float(first["abs_rel"])
    assert [row["name"] for row in document["per_image"]] == ["desk/00", "desk/01", "desk/02"]
    assert document["per_image"][2]["abs_rel"] == pytest.approx(0.2, abs=2e-4)
    # Nothing is nearer than a metre, and JSON has no NaN.
    assert document["metrics"]["native"]["abs_rel_0_1m"] is None
    assert document["metrics"]["native"]["share_1_2m"] == pytest.approx(2 / 3, abs=1e-4)


def test_depth_is_scaled_to_the_focal_length_of_the_frames(red: Path, tmp_path: Path) -> None:
    desk = write_desk(tmp_path, [2.0])
    write_settings(desk, 1e-4, CameraModel(WIDTH, HEIGHT, 50.0, 50.0, 63.5, 47.5))
    frames = open_frames(desk, "test")
    result, _ = evaluate.evaluate(evaluate.open_estimator(red), frames, PROTOCOLS["native"], False)
    assert result["scale_bias"] == pytest.approx(1.0, abs=1e-3)


def test_nothing_is_scaled_by_the_truth(red: Path, tmp_path: Path) -> None:
    frames = open_frames(write_desk(tmp_path, [3.0, 3.0]), "test")
    result, _ = evaluate.evaluate(evaluate.open_estimator(red), frames, PROTOCOLS["native"], False)
    assert result["delta1"] == 0 and result["abs_rel"] == pytest.approx(2, abs=1e-3)


def test_what_a_robot_would_call_too_near_is_measured_too(red: Path, tmp_path: Path) -> None:
    desk = write_desk(tmp_path, [1.0])
    model = networks.red_channel(tmp_path / "near.onnx", factor=0.0005)  # 5 cm
    frames = open_frames(desk, "test")
    depth = evaluate.predict(evaluate.open_estimator(model), frames[0].read(), mirror=False)
    np.testing.assert_allclose(depth, 0.05, rtol=1e-5)


def test_frames_without_truth_do_not_count(red: Path, tmp_path: Path) -> None:
    desk = write_desk(tmp_path, [1.1, 1.3])
    cv2.imwrite(str(desk / "depth" / "01.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    out = tmp_path / "result.json"
    assert evaluate.main([str(red), "--data", str(desk), "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["images"] == len(document["per_image"]) == 1
    assert document["metrics"]["native"]["abs_rel"] == pytest.approx(0.1, abs=2e-4)


@pytest.mark.parametrize(("limit", "names"), [(1, ["05"]), (3, ["01", "05", "08"])])
def test_a_limit_takes_frames_from_the_whole_set(
    red: Path, tmp_path: Path, limit: int, names: list[str]
) -> None:
    desk, out = write_desk(tmp_path, [1.1] * 10), tmp_path / "result.json"
    arguments = [str(red), "--data", str(desk), "--limit", str(limit), "--json", str(out)]
    assert evaluate.main(arguments) == 0
    images = json.loads(out.read_text())["per_image"]
    assert [row["name"] for row in images] == [f"desk/{name}" for name in names]


def test_the_table_shows_metrics_and_bands(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(red), "--data", str(write_desk(tmp_path, [1.1, 0.8]))]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["delta1", "0.5000"] in lines and ["abs_rel", "0.1500"] in lines
    assert ["1-2m", "0.5000", "0.1000", "1.0000"] in lines
    assert ["2-4m", "0.5000", "0.2000", "0.0000"] in lines
    assert ["0-1m", "0.0000", "nan", "nan"] in lines


# --- mirror --------------------------------------------------------------------------------------


def answers(path: Path, pair: Pair) -> dict[bool, npt.NDArray[np.float32]]:
    """The plain answer (False), and its mean with the answer to the mirror image (True)."""
    estimator = DepthEstimator(TorchEngine(path), 0, 100)
    height, width = pair.depth.shape
    camera = CameraModel(width, height, pair.fx, pair.fy, width / 2, height / 2)
    plain = estimator.estimate(np.ascontiguousarray(pair.image), camera).depth.copy()
    mirrored = np.ascontiguousarray(pair.image[:, ::-1])
    turned = estimator.estimate(mirrored, camera).depth[:, ::-1]
    assert np.abs(plain - turned).max() > 0.01  # or no test could tell
    return {False: plain, True: (plain + turned) / np.float32(2)}


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)


def test_the_mirror_average_is_that_of_both_answers(checkpoint: Path) -> None:
    pair = Pair(noise(96, 144), np.ones((96, 144), np.float32), 90.0, 95.0, "noise")
    estimator = evaluate.open_estimator(checkpoint)
    for mirror, depth in answers(checkpoint, pair).items():
        np.testing.assert_allclose(evaluate.predict(estimator, pair, mirror), depth, rtol=1e-5)


def test_the_mirror_is_used_where_the_protocol_or_the_user_says_so(
    checkpoint: Path, tiny_nyu: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tiny_nyu / "rgb" / "0000.jpg"), noise(480, 640))
    (tiny_nyu / "test654.txt").write_text("0\n")
    pair = open_frames(tiny_nyu, "test")[0].read()
    depths = answers(checkpoint, pair)
    out = tmp_path / "result.json"
    for protocol, options, mirror in (
        ("eigen", [], False),
        ("eigen", ["--mirror"], True),
        ("densedepth", [], True),
    ):
        arguments = [str(checkpoint), "--data", str(tiny_nyu), "--protocol", protocol, *options]
        assert evaluate.main([*arguments, "--json", str(out)]) == 0
        document = json.loads(out.read_text())
        assert document["mirror"] is mirror
        assert document["protocol"] == (f"{protocol}+mirror" if options else protocol)
        expected, other = (
            PROTOCOLS[protocol].evaluation().add(depths[m], pair.depth)
            for m in (mirror, not mirror)
        )
        assert expected is not None and other is not None
        assert document["per_image"][0]["rmse"] == pytest.approx(expected["rmse"], rel=1e-6)
        assert abs(expected["rmse"] / other["rmse"] - 1) > 1e-5


# --- NYU -----------------------------------------------------------------------------------------


@pytest.fixture
def tiny_nyu(tmp_path: Path) -> Path:
    """Two test images whose red channel is the depth code times a known factor."""
    root = tmp_path / "nyu"
    for folder in ("rgb", "depth8"):
        (root / folder).mkdir(parents=True)
    (root / "test654.txt").write_text("0\n1\n")
    (root / "train795.txt").write_text("0\n1\n")
    for index, code in enumerate((60, 120)):
        image = np.full((480, 640, 3), code, np.uint8)
        depth = np.full((480, 640), code, np.uint8)
        depth[:45] = 255  # outside the Eigen crop: must not count
        cv2.imwrite(str(root / "rgb" / f"{index:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        cv2.imwrite(str(root / "depth8" / f"{index:04d}.png"), depth)
    return root


def test_nyu_is_measured_by_the_eigen_protocol(tiny_nyu: Path, tmp_path: Path) -> None:
    scale = (nyu.FX * WIDTH / 640 * nyu.FY * HEIGHT / 480) ** 0.5 / networks.FOCAL
    # The network answers 1.1 times the truth, apart from half a step of the 8-bit code.
    model = networks.red_channel(tmp_path / "red.onnx", factor=1.1 / 25.5 / scale)
    out = tmp_path / "result.json"
    ratios = [1.1 * code / (code + 0.5) for code in (60, 120)]
    for split in ("test", "validation"):
        arguments = [str(model), "--data", str(tiny_nyu), "--split", split, "--json", str(out)]
        assert evaluate.main(arguments) == 0
        metrics = json.loads(out.read_text())["metrics"]["eigen"]
        assert metrics["abs_rel"] == pytest.approx(np.mean(ratios) - 1, abs=1e-3)
        assert metrics["log10"] == pytest.approx(np.mean(np.log10(ratios)), abs=1e-3)
        assert metrics["delta1"] == 1.0


def test_a_protocol_for_another_size_is_a_one_line_error(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = write_desk(tmp_path, [1.1])
    assert evaluate.main([str(red), "--data", str(desk), "--protocol", "eigen"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "eigen" in last and "native" in last


# --- models --------------------------------------------------------------------------------------


def test_a_checkpoint_behind_an_engine_computes_what_its_network_does(checkpoint: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    engine = TorchEngine(checkpoint)
    network = build_unet("mobilenetv2-unet")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): v for name, v in state.items()})
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        truth = network.eval()(x)[0, 0].exp().clamp(0.1, 20).numpy()
    np.testing.assert_allclose(engine.infer(image), truth, rtol=1e-4)
    assert (engine.metadata.height, engine.metadata.width) == (64, 96)
    assert engine.metadata.focal == pytest.approx((80.0 * 82.0) ** 0.5)
    assert engine.output_spec.shape == (1, 32, 48)
    assert engine.describe().startswith(f"torch {torch.__version__}")
    with pytest.raises(ValueError, match="contiguous uint8"):
        engine.infer(image[:32])
    engine.close()


@pytest.mark.parametrize(("option", "value"), [("--engine", "onnx"), ("--precision", "bfloat16")])
def test_a_checkpoint_has_no_other_engine(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    desk = write_desk(tmp_path, [1.1])
    assert evaluate.main([str(checkpoint), "--data", str(desk), option, value]) == 1
    assert "export it" in capsys.readouterr().err.splitlines()[-1]


class Intruder:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_model_that_cannot_be_used_is_a_one_line_error_and_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, mark = write_desk(tmp_path, [1.1]), tmp_path / "mark"
    torch.save({"state_dict": Intruder(mark)}, tmp_path / "code.ckpt")
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "text.pt").write_text("hello")
    for name in ("code.ckpt", "text.onnx", "text.pt", "none.ckpt", "none.onnx"):
        assert evaluate.main([str(tmp_path / name), "--data", str(desk)]) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and errors[0].startswith("training.evaluate: ")
        assert name in errors[0]
    assert not mark.exists()


def test_data_that_cannot_be_read_are_a_one_line_error(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(red), "--data", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err.splitlines()[-1]
    desk = write_desk(tmp_path, [1.1, 1.1])
    (desk / "rgb" / "01.png").write_bytes(b"no picture")
    assert evaluate.main([str(red), "--data", str(desk)]) == 1
    assert "01.png" in capsys.readouterr().err.splitlines()[-1]
    assert evaluate.main([str(red), "--data", str(desk), "--limit", "0"]) == 1


def test_the_engine_asked_for_is_the_one_that_runs(red: Path) -> None:
    assert evaluate.open_estimator(red, "onnx").engine.describe().startswith("onnxruntime")
    assert evaluate.open_estimator(red, "openvino").engine.describe().startswith("openvino")
    with pytest.raises(EngineError, match="bfloat16"):
        evaluate.open_estimator(red, "onnx", "bfloat16")


# --- tables --------------------------------------------------------------------------------------


def test_a_table_with_other_columns_is_left_alone(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, table = write_desk(tmp_path, [1.1]), tmp_path / "old.csv"
    table.write_text("model,delta1\nold.onnx,0.5\n")
    out = tmp_path / "result.json"
    arguments = [str(red), "--data", str(desk), "--csv", str(table), "--json", str(out)]
    assert evaluate.main(arguments) == 1
    assert "old.csv" in capsys.readouterr().err
    assert table.read_text() == "model,delta1\nold.onnx,0.5\n"
    assert not out.exists()  # found out before anything was measured


def test_the_table_in_the_repository_takes_new_rows() -> None:
    path = default_model().parent / "results.csv"
    evaluate.check_table(path)
    rows = rows_of(path)
    assert rows
    for row in rows:
        assert None not in row and None not in row.values()
        assert 0 < float(row["delta1"]) < float(row["delta2"]) < float(row["delta3"]) < 1


def test_the_shipped_model_is_measured() -> None:
    path = default_model()
    document = read_metadata(path).document
    rows = [
        row
        for row in rows_of(path.parent / "results.csv")
        # What the file says of itself is what it is, not what it is when it is made smaller.
        if row["model"] == path.name
        and row["protocol"] in document["metrics"]
        and "int8" not in row["engine"]
    ]
    assert rows, "results.csv has no row for the shipped model"
    last = rows[-1]
    assert last["images"] == "654" and last["split"] == "test"
    for name, value in document["metrics"][last["protocol"]].items():
        if last.get(name):
            assert float(last[name]) == pytest.approx(value, abs=2e-3)
    assert document["data"][0] == "nyu_depth_v2_labeled_train795"


# --- pictures ------------------------------------------------------------------------------------

FRAMES = 15
RATIOS = [1 + 0.03 * (7 * i % FRAMES) for i in range(FRAMES)]  # all different, in no order


@pytest.fixture(scope="module")
def panels(red: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("panels")
    out = root / "out"
    out.mkdir()
    for stale in ("worst-17.png", "typical-11.png", "worst-me.png"):
        (out / stale).write_bytes(b"")
    desk = write_desk(root, RATIOS)
    assert evaluate.main([str(red), "--data", str(desk), "--panels", str(out)]) == 0
    return out


def frame_shown(path: Path) -> int:
    """The number of the frame in a panel, from the green of its image tile."""
    panel = cv2.imread(str(path))
    assert panel is not None
    blue, green, red = (int(v) for v in panel[panel.shape[0] // 2, 40])
    assert (blue, red) == (0, 100)
    return green // 5


def test_the_ten_worst_images_are_drawn_worst_first(panels: Path) -> None:
    order = sorted(range(FRAMES), key=lambda i: -RATIOS[i])
    shown = [frame_shown(panels / f"worst-{n:02d}.png") for n in range(1, 11)]
    assert shown == order[:10]


def test_ten_typical_images_are_drawn_from_the_whole_ranking(panels: Path) -> None:
    order = sorted(range(FRAMES), key=lambda i: -RATIOS[i])
    ranks = [order.index(frame_shown(panels / f"typical-{n:02d}.png")) for n in range(1, 11)]
    assert ranks == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14]


def test_pictures_of_an_earlier_run_are_taken_away(panels: Path) -> None:
    names = {f"{kind}-{n:02d}.png" for kind in ("worst", "typical") for n in range(1, 11)}
    left = {path.name for path in panels.iterdir()}
    assert left == names | {"worst.png", "metrics.csv", "worst-me.png"}


def test_every_image_has_a_row_in_the_order_of_the_ranking(panels: Path) -> None:
    rows = rows_of(panels / "metrics.csv")
    assert list(rows[0]) == ["name", "abs_rel", "delta1", "rmse", "scale_bias"]
    order = sorted(range(FRAMES), key=lambda i: -RATIOS[i])
    assert [row["name"] for row in rows] == [f"desk/{i:02d}" for i in order]
    for i, row in zip(order, rows, strict=True):
        assert float(row["abs_rel"]) == pytest.approx(RATIOS[i] - 1, abs=2e-4)
        assert float(row["scale_bias"]) == pytest.approx(RATIOS[i], abs=2e-4)


def test_the_contact_sheet_has_all_the_worst(panels: Path) -> None:
    sheet, panel = (cv2.imread(str(panels / name)) for name in ("worst.png", "worst-01.png"))
    assert sheet is not None and panel is not None
    greens = sheet[:, 20, 1][(sheet[:, 20, 0] == 0) & (sheet[:, 20, 2] == 100)] // 5
    order = sorted(range(FRAMES), key=lambda i: -RATIOS[i])
    assert list(dict.fromkeys(greens.tolist())) == order[:10]
    assert sheet.shape[1] < panel.shape[1]


def test_a_panel_shows_both_depths_on_one_scale_and_the_sign_of_the_error() -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    truth = np.full((60, 80), 2.0, np.float32)
    truth[:, 40:] = 4.0
    truth[:10] = np.nan
    depth = np.full((60, 80), 4.0, np.float32)  # 100 % too far on the left, right on the right
    depth[40:, 40:] = 2.0  # 50 % too near
    panel = draw_panel(image, truth, depth, "caption", long_side=240)
    height, width = panel.shape[0], panel.shape[1]
    tile = (width - 5 * 6) // 4
    lefts = [6 + i * (tile + 6) for i in range(4)]

    def colour(column: int, x: float, y: float) -> list[int]:
        top, tall = 44, height - 44 - 6 - 36
        return [int(v) for v in panel[top + int(y * tall), lefts[column] + int(x * tile)]]

    near, far = colour(1, 0.25, 0.5), colour(1, 0.75, 0.5)
    assert near != far
    assert colour(2, 0.25, 0.5) == colour(2, 0.75, 0.5) == far
    assert colour(2, 0.75, 0.9) == near
    assert colour(1, 0.5, 0.05) == colour(3, 0.5, 0.05) == [0, 0, 0]
    blue, green, red = colour(3, 0.25, 0.5)
    assert red > 150 > 60 > max(blue, green)
    assert min(colour(3, 0.75, 0.5)) > 240
    blue, green, red = colour(3, 0.75, 0.9)
    assert blue > 150 > 60 > red


def test_the_colours_reach_over_both_maps() -> None:
    truth, depth = np.linspace(1, 2, 1000, dtype=np.float32), np.full(1000, 5, np.float32)
    depth[:100] = np.nan
    low, high = colour_range(truth[None], depth[None])
    assert low == pytest.approx(1.01, abs=1e-3) and high == 5
    low, high = colour_range(np.full((2, 2), 3, np.float32), np.full((2, 2), 3, np.float32))
    assert low == 3 < high
    nothing = np.full((2, 2), np.nan, np.float32)
    low, high = colour_range(nothing, nothing)
    assert low < high


def test_panels_of_different_shapes_share_a_sheet() -> None:
    rows = [
        draw_panel(
            np.zeros((*shape, 3), np.uint8),
            np.ones(shape, np.float32),
            np.ones(shape, np.float32),
            "",
            100,
        )
        for shape in ((30, 40), (60, 40))
    ]
    sheet = contact_sheet(rows)
    assert sheet.shape[1] == max(row.shape[1] for row in rows)
    assert sheet.shape[0] >= sum(row.shape[0] for row in rows)
    with pytest.raises(ValueError, match="no panel"):
        contact_sheet([])
