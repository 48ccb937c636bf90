"""The command `depth_video` on real clips, folders and bad input, with a network made for it.

The network answers 0.5 m + 4 m x brightness at half its input size, so what depth an image must get
is known without running it.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from mono_depth_ros.calibrated_view import View
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.depth_video import main
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.frame_source import TruthFolder, open_source

WIDTH, HEIGHT = 64, 48
HFOV = 60.0
REPOSITORY = Path(__file__).resolve().parent.parent
Image = npt.NDArray[np.uint8]


def save_network(path: Path, metadata: bool = True) -> Path:
    """Writes the ONNX: uint8 1x48x64x3 -> float32 1x24x32, trained at the focal length of HFOV."""
    constants: dict[str, npt.NDArray[Any]] = {
        "axes": np.array([3], np.int64),
        "begin": np.array([0, 0], np.int64),
        "end": np.array([HEIGHT, WIDTH], np.int64),
        "rows": np.array([1, 2], np.int64),
        "two": np.array([2, 2], np.int64),
        "slope": np.array(4 / 255, np.float32),
        "offset": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["gray"], keepdims=0),
        helper.make_node("Slice", ["gray", "begin", "end", "rows", "two"], ["half"]),
        helper.make_node("Mul", ["half", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, HEIGHT // 2, WIDTH // 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    focal = CameraModel.from_hfov(WIDTH, HEIGHT, HFOV).focal
    if metadata:
        document = {
            "schema": 1,
            "architecture": "brightness",
            "input": {"height": HEIGHT, "width": WIDTH},
            "training_focal_px": {"fx": focal, "fy": focal},
            "depth_m": {"min": 0.1, "max": 10.0},
        }
        helper.set_model_props(model, {"mono_depth": json.dumps(document)})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "brightness.onnx")


def scene(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """A smooth gray picture, so that edges play no part."""
    y, x = np.mgrid[0:height, 0:width]
    wave = np.sin(3 * x / width + seed) + np.cos(2 * y / height - seed)
    return np.repeat((120 + 50 * wave).astype(np.uint8)[..., None], 3, axis=2)


def save_folder(folder: Path, count: int, **size: int) -> Path:
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), scene(i, **size))
    return folder


def save_clip(path: Path, count: int, fourcc: str = "mp4v", fps: float = 30) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(count):
        writer.write(scene(i))
    writer.release()
    return path


def run(source: Path | str, out: Path, network: Path, *options: object) -> dict[str, Any]:
    """Runs the command in this process; it must succeed. Gives its JSON."""
    figures = out.with_suffix(".json")
    argv = [source, "--out", out, "--model", network, "--engine", "onnx", "--json", figures]
    assert main([str(token) for token in (*argv, *options)]) == 0
    return dict(json.loads(figures.read_text()))


def command(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "mono_depth_ros.depth_video", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def estimate(network: Path, image: Image, camera: CameraModel, *limits: float) -> Any:
    """uint16 millimetres from the estimator, rounded one by one in Python."""
    estimator = DepthEstimator.open(network, "onnx", "auto", *limits)
    depth = estimator.estimate(np.ascontiguousarray(image), camera).depth.copy()
    estimator.close()
    rounded = [round(float(z) * 1000) if np.isfinite(z) else 0 for z in depth.ravel()]
    return np.array(rounded).reshape(depth.shape)


def depth_png(out: Path, index: int) -> npt.NDArray[np.int64]:
    units = cv2.imread(str(out / "depth" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
    assert units is not None
    assert units.dtype == np.uint16
    return units.astype(np.int64)


def read_clip(path: Path) -> tuple[list[npt.NDArray[Any]], float]:
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    frames: list[npt.NDArray[Any]] = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames, fps
        frames.append(frame)


def ply_depths(path: Path) -> list[float]:
    """Z of each point."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    assert int(head.split(b"element vertex ")[1].split()[0]) == len(body) / 15
    return [z for _, _, z, *_ in struct.iter_unpack("<fffBBB", body)]


# -- what comes out --------------------------------------------------------------------------------


def test_video_gives_all_files_and_figures(tmp_path: Path, network: Path) -> None:
    clip = save_clip(tmp_path / "clip.mp4", 12)
    figures = run(clip, tmp_path / "out", network, "--every", 3, "--depth-png", "--hfov", HFOV)
    out = tmp_path / "out"
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    numbers = ("000000", "000003", "000006", "000009")
    pngs = [f"depth/{number}.png" for number in numbers]
    assert names == ["cloud.ply", *pngs, "panel.png", "side_by_side.mp4"]
    frames, fps = read_clip(out / "side_by_side.mp4")
    assert len(frames) == 4
    assert fps == pytest.approx(10)
    assert figures["frames"] == 4
    assert figures["skipped"] == 0
    assert figures["engine"].startswith("onnxruntime")
    assert 0 < figures["engine_ms"]["p50"] <= figures["engine_ms"]["p95"]
    assert figures["frames_per_second"] > 0
    assert figures["accuracy"] is None
    assert figures["cloud"]["frame"] == 6
    assert figures["cloud"]["points"] == len(ply_depths(out / "cloud.ply")) == WIDTH * HEIGHT


def test_side_by_side_shows_the_image_and_its_depth_in_both_colour_maps(
    tmp_path: Path, network: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.full((HEIGHT, WIDTH, 3), (20, 90, 160), np.uint8)  # B, G, R; mean 90
    cv2.imwrite(str(folder / "a.png"), image)
    run(folder, tmp_path / "out", network, "--hfov", HFOV, "--fps", 5)
    frames, fps = read_clip(tmp_path / "out" / "side_by_side.mp4")
    assert fps == 5
    assert frames[0].shape[1] == 3 * 640
    # 0.5 + 4 * 90 / 255 = 1.91 m of 0.1 to 10 m is 18.3 % of the ramp, which starts at the bright
    # end: entry 255 - 46.7 of OpenCV's colour maps.
    gray = np.array([[208]], np.uint8)
    expected = [
        image[0, 0],
        cv2.applyColorMap(gray, cv2.COLORMAP_PLASMA)[0, 0],
        cv2.applyColorMap(gray, cv2.COLORMAP_JET)[0, 0],
    ]
    for tile, colour in enumerate(expected):
        shown = frames[0][240, 640 * tile + 320].astype(int)
        np.testing.assert_allclose(shown, colour.astype(int), atol=12)  # MPEG-4 is lossy


def test_depth_png_is_the_estimate_in_millimetres(tmp_path: Path, network: Path) -> None:
    folder = save_folder(tmp_path / "in", 2)
    run(folder, tmp_path / "out", network, "--hfov", 75, "--max-depth", 2.0, "--depth-png")
    camera = CameraModel.from_hfov(WIDTH, HEIGHT, 75)
    for i in range(2):
        expected = estimate(network, scene(i), camera, 0.1, 2.0)
        assert (expected == 0).any()
        assert (expected > 0).any()
        assert (depth_png(tmp_path / "out", i) == expected).all()


def test_millimetres_follow_rep_118() -> None:
    nan, inf = float("nan"), float("inf")
    metres = [nan, inf, -inf, 0.0, -1.0, 0.0006, 1.2344, 1.2346, 65.535, 65.6]
    result = millimetres(np.array([metres], np.float32))
    assert result.dtype == np.uint16
    assert result.tolist() == [[0, 0, 0, 0, 0, 1, 1234, 1235, 65535, 0]]


K = (50.0, 52.0, 30.0, 25.5)
D = (0.25, -0.3, -0.0054, 0.0026, 0.1)


def save_camera_info(path: Path, projection: list[float], **changes: object) -> Path:
    """What camera_calibration writes."""
    fx, fy, cx, cy = K
    document = {
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "camera_name": "narrow_stereo",
        "camera_matrix": {"rows": 3, "cols": 3, "data": [fx, 0, cx, 0, fy, cy, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": list(D)},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection},
    }
    document.update(changes)
    # JSON is YAML.
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return path


def rectified_by_hand(network: Path, image: Image, new: tuple[float, ...]) -> Any:
    """Rectifies with OpenCV's own maps, estimates, blanks what the camera does not see."""
    fx, fy, cx, cy = K
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    p = np.array([[new[0], 0, new[2]], [0, new[1], new[3]], [0, 0, 1]])
    x, y = cv2.initUndistortRectifyMap(k, np.array(D), np.eye(3), p, (WIDTH, HEIGHT), cv2.CV_32FC1)
    fixed = cv2.convertMaps(x, y, cv2.CV_16SC2)
    straight = cv2.remap(image, *fixed, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    depth = estimate(network, np.asarray(straight, np.uint8), CameraModel(WIDTH, HEIGHT, *new))
    depth[(x < 0) | (y < 0) | (x > WIDTH - 1) | (y > HEIGHT - 1)] = 0
    return depth


def test_distorted_images_are_rectified_first(tmp_path: Path, network: Path) -> None:
    folder = save_folder(tmp_path / "in", 1)
    new = (55.0, 58.0, 31.0, 24.0)
    projection = [new[0], 0, new[2], 0, 0, new[1], new[3], 0, 0, 0, 1, 0]
    info = save_camera_info(tmp_path / "camera.yaml", projection)
    run(folder, tmp_path / "info", network, "--depth-png", "--camera-info", info)
    expected = rectified_by_hand(network, scene(0), new)
    assert (depth_png(tmp_path / "info", 0) == expected).all()

    names = ("--fx", "--fy", "--cx", "--cy")
    options = [token for pair in zip(names, K, strict=True) for token in pair]
    # The exponent checks that argparse does not take the number for an option.
    coefficients = (D[0], D[1], "-5.4e-3", *D[3:])
    figures = run(
        folder, tmp_path / "fx", network, "--depth-png", *options, "--distortion", *coefficients
    )
    expected = rectified_by_hand(network, scene(0), K)
    assert (expected == 0).any()
    assert (depth_png(tmp_path / "fx", 0) == expected).all()
    assert figures["cloud"]["camera"]["fx"] == K[0]
    assert figures["cloud"]["points"] == np.count_nonzero(expected)


def test_images_of_another_size_keep_the_view(tmp_path: Path, network: Path) -> None:
    folder = save_folder(tmp_path / "in", 1)
    large = scene(5, 2 * WIDTH, 2 * HEIGHT)
    cv2.imwrite(str(folder / "1.png"), large)
    fx, fy, cx, cy = K
    options = ("--fx", fx, "--fy", fy, "--cx", cx, "--cy", cy)
    figures = run(folder, tmp_path / "out", network, "--depth-png", "--ply-frame", 1, *options)
    camera = CameraModel(2 * WIDTH, 2 * HEIGHT, 2 * fx, 2 * fy, 2 * cx + 0.5, 2 * cy + 0.5)
    assert (depth_png(tmp_path / "out", 1) == estimate(network, large, camera)).all()
    assert figures["cloud"]["camera"] == {
        "width": 2 * WIDTH, "height": 2 * HEIGHT,
        "fx": 2 * fx, "fy": 2 * fy, "cx": 2 * cx + 0.5, "cy": 2 * cy + 0.5,
    }  # fmt: skip
    assert len(read_clip(tmp_path / "out" / "side_by_side.mp4")[0]) == 2


@pytest.mark.parametrize(("width", "height"), [(45, 80), (101, 33), (641, 7), (1, 1)])
def test_portrait_and_odd_sizes(tmp_path: Path, network: Path, width: int, height: int) -> None:
    folder = save_folder(tmp_path / "in", 2, width=width, height=height)
    run(folder, tmp_path / "out", network, "--depth-png", "--hfov", HFOV)
    assert depth_png(tmp_path / "out", 0).shape == (height, width)
    frames, _ = read_clip(tmp_path / "out" / "side_by_side.mp4")
    assert len(frames) == 2
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    panel = cv2.imread(str(tmp_path / "out" / "panel.png"))
    assert panel is not None
    assert panel.shape[0] > 2 * 160


def test_gray_alpha_and_16_bit_images_are_read_as_colour(tmp_path: Path, network: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray = scene(3)[..., 0]
    cv2.imwrite(str(folder / "0.png"), gray)
    cv2.imwrite(str(folder / "1.png"), np.dstack((scene(3), 255 - gray)))
    cv2.imwrite(str(folder / "2.png"), gray.astype(np.uint16) * 256)
    run(folder, tmp_path / "out", network, "--depth-png", "--hfov", HFOV)
    expected = estimate(network, scene(3), CameraModel.from_hfov(WIDTH, HEIGHT, HFOV))
    for i in range(3):
        assert (depth_png(tmp_path / "out", i) == expected).all()


def test_a_folder_is_read_in_natural_order(tmp_path: Path, network: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (10, 9, 100):
        cv2.imwrite(str(folder / f"view{number}.jpg"), np.full((48, 64, 3), number, np.uint8))
    (folder / "notes.txt").touch()
    run(folder, tmp_path / "out", network, "--depth-png", "--hfov", HFOV)
    centres = [int(depth_png(tmp_path / "out", i)[24, 32]) for i in range(3)]
    expected = [500 + 4000 * number / 255 for number in (9, 10, 100)]
    np.testing.assert_allclose(centres, expected, atol=20)


def test_a_single_image_is_not_read_as_a_sequence(tmp_path: Path, network: Path) -> None:
    folder = save_folder(tmp_path / "in", 3)
    assert run(folder / "0.png", tmp_path / "out", network, "--hfov", HFOV)["frames"] == 1


@pytest.mark.parametrize(
    ("options", "frame", "count"),
    [
        ((), 3, 6),
        (("--every", 2), 2, 3),
        (("--max-frames", 4), 2, 4),
        (("--every", 2, "--max-frames", 2), 2, 2),
        (("--ply-frame", 0), 0, 6),
        (("--every", 4, "--ply-frame", 1), 4, 2),
    ],
)
def test_which_frames_are_used(
    tmp_path: Path, network: Path, options: tuple[object, ...], frame: int, count: int
) -> None:
    folder = save_folder(tmp_path / "in", 6)
    out = tmp_path / "out"
    figures = run(folder, out, network, "--hfov", HFOV, "--depth-png", *options)
    assert (figures["cloud"]["frame"], figures["frames"]) == (frame, count)
    depths = 1000 * np.array(ply_depths(out / "cloud.ply"))
    np.testing.assert_allclose(depths, depth_png(out, frame).ravel(), atol=0.6)


def test_accuracy_is_the_mean_over_images(tmp_path: Path, network: Path) -> None:
    folder, truth = save_folder(tmp_path / "in", 3), tmp_path / "truth"
    truth.mkdir()
    run(folder, tmp_path / "first", network, "--depth-png", "--hfov", HFOV)
    # Truth 1.2 and 1.5 times as far, in half millimetres; none for the third image. Most of the
    # first is not measured, which must not change its weight.
    for i, factor in ((0, 1.2), (1, 1.5)):
        units = np.round(depth_png(tmp_path / "first", i) * factor * 2).astype(np.uint16)
        if i == 0:
            units[5:] = 0
        cv2.imwrite(str(truth / f"{i}.png"), units)
    options = ("--hfov", HFOV, "--truth", truth, "--truth-scale", 0.0005)
    figures = run(folder, tmp_path / "second", network, *options)
    assert figures["accuracy_images"] == 2
    accuracy = figures["accuracy"]
    assert accuracy["abs_rel"] == pytest.approx((0.2 / 1.2 + 0.5 / 1.5) / 2, rel=2e-3)
    assert accuracy["delta1"] == pytest.approx(0.5)
    assert accuracy["scale"] == pytest.approx((1 / 1.2 + 1 / 1.5) / 2, rel=2e-3)
    assert accuracy["coverage"] == 1.0
    with_truth = cv2.imread(str(tmp_path / "second" / "panel.png"))
    without = cv2.imread(str(tmp_path / "first" / "panel.png"))
    assert with_truth is not None
    assert without is not None
    assert with_truth.shape[1] > 1.6 * without.shape[1]


def test_truth_is_rectified_with_the_image(tmp_path: Path, network: Path) -> None:
    """Brightness is depth here, so an image and its depth agree only if both are rectified."""
    folder, truth = save_folder(tmp_path / "in", 1), tmp_path / "truth"
    truth.mkdir()
    new = (75.0, 78.0, 38.0, 20.0)
    focal = np.sqrt(new[0] * new[1]) / CameraModel.from_hfov(WIDTH, HEIGHT, HFOV).focal
    units = (500 + 4000 * (scene(0)[..., 0] / 255.0)) * focal
    cv2.imwrite(str(truth / "other_name.png"), np.round(units).astype(np.uint16))
    projection = [new[0], 0, new[2], 0, 0, new[1], new[3], 0, 0, 0, 1, 0]
    info = save_camera_info(tmp_path / "camera.yaml", projection)
    options = ("--camera-info", info, "--truth", truth)
    figures = run(folder, tmp_path / "out", network, *options)
    assert figures["accuracy"]["abs_rel"] < 0.02
    assert figures["accuracy"]["scale"] == pytest.approx(1, abs=0.005)


def test_rectified_truth_is_the_nearest_measured_pixel() -> None:
    fx, fy, cx, cy = K
    k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    view = View(Calibration(WIDTH, HEIGHT, k, D, "plumb_bob"))
    numbered = np.arange(WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH) + 1
    result = view.rectify_depth(numbered)
    matrix = np.reshape(k, (3, 3))
    x, y = cv2.initUndistortRectifyMap(
        matrix, np.array(D), np.eye(3), matrix, (WIDTH, HEIGHT), cv2.CV_32FC1
    )
    for v in range(HEIGHT):
        for u in range(WIDTH):
            column, row = float(x[v, u]), float(y[v, u])
            if not (0 <= column <= WIDTH - 1 and 0 <= row <= HEIGHT - 1):
                assert np.isnan(result[v, u])
                continue
            # The maps hold 1/32 pixel, so near a half either neighbour may do.
            found_row, found_column = divmod(int(result[v, u]) - 1, WIDTH)
            assert abs(found_row - row) < 0.54
            assert abs(found_column - column) < 0.54


def test_truth_is_not_a_number_where_nothing_was_measured(tmp_path: Path) -> None:
    folder, truth = save_folder(tmp_path / "in", 1), tmp_path / "truth"
    truth.mkdir()
    units = np.full((HEIGHT, WIDTH), 2500, np.uint16)
    units[:, :10] = 0
    cv2.imwrite(str(truth / "0.png"), units)
    source = open_source(str(folder), print)
    depth = TruthFolder(truth, 0.0002, source).depth(next(iter(source.frames(1))))
    assert depth is not None
    assert np.isnan(depth[:, :10]).all()
    np.testing.assert_allclose(depth[:, 10:], 0.5)


def test_an_unreadable_image_is_named_and_skipped(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_folder(tmp_path / "in", 3)
    (folder / "1.png").write_bytes(b"not an image")
    figures = run(folder, tmp_path / "out", network, "--depth-png", "--hfov", HFOV)
    assert (figures["frames"], figures["skipped"]) == (2, 1)
    assert f"{folder / '1.png'}: not a readable image; skipped" in capsys.readouterr().err
    camera = CameraModel.from_hfov(WIDTH, HEIGHT, HFOV)
    assert (depth_png(tmp_path / "out", 2) == estimate(network, scene(2), camera)).all()


def test_a_guessed_field_of_view_is_warned_of_in_one_line(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_folder(tmp_path / "in", 1)
    run(folder, tmp_path / "guess", network)
    error = capsys.readouterr().err
    assert error.count("warning") == 1
    assert "60 deg" in error
    run(folder, tmp_path / "given", network, "--hfov", 60)
    assert "warning" not in capsys.readouterr().err


def test_needs_neither_ros_nor_torch_nor_matplotlib(tmp_path: Path, network: Path) -> None:
    folder = save_folder(tmp_path / "in", 1)
    script = (
        "import sys; from mono_depth_ros.depth_video import main;"
        "status = main(sys.argv[1:]);"
        "print({'rclpy', 'sensor_msgs', 'torch', 'matplotlib', 'training'} & set(sys.modules));"
        "sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, folder, "--out", tmp_path / "out", "--model", network],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "set()"
    table = {line[:16].strip() for line in result.stdout.splitlines()[:-1]}
    assert {"engine", "camera", "frames", "network", "image to depth", "written to"} <= table


def test_help_has_examples() -> None:
    result = command("--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


# -- what is refused -------------------------------------------------------------------------------


def refused(capfd: pytest.CaptureFixture[str], argv: list[object], *words: str) -> None:
    """The command must end with status 1, and one line of error that has these words."""
    assert main([str(token) for token in argv]) == 1
    one_error(capfd.readouterr().err, *words)


def one_error(stderr: str, *words: str) -> None:
    """Only the last line may be an error, none may be a library's, and it must have the words."""
    lines = stderr.strip().splitlines()
    assert all(line.startswith("depth_video: warning: ") for line in lines[:-1]), stderr
    assert lines[-1].startswith("depth_video: error: "), stderr
    for word in words:
        assert word in lines[-1]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save_folder(tmp_path / "images", 2)


def test_source_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, [tmp_path / "no.mp4", "--hfov", 60], "no.mp4: no such file", "webcam")


def test_webcam_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, ["97", "--hfov", 60], "webcam 97: cannot be opened", "/dev/video97")


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 40])
def test_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    result = command(tmp_path / "clip.mp4", "--hfov", 60)
    assert result.returncode == 1
    one_error(result.stderr, "clip.mp4: not a readable video", "ffmpeg")


def test_mp4_cut_in_half(tmp_path: Path) -> None:
    clip = save_clip(tmp_path / "clip.mp4", 30)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    result = command(clip, "--hfov", 60)
    assert result.returncode == 1
    one_error(result.stderr, "clip.mp4: not a readable video (cut off")


def test_truncated_video_gives_results_for_what_there_is_and_fails(
    tmp_path: Path, network: Path
) -> None:
    clip = save_clip(tmp_path / "clip.avi", 40, "MJPG")
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    result = command(
        clip, "--out", out, "--model", network, "--hfov", 60, "--json", figures, "--fps", 10
    )
    assert result.returncode == 1
    one_error(result.stderr, "clip.avi: cut off after", "of 40 frames")
    count = json.loads(figures.read_text())["frames"]
    assert 10 < count < 30
    assert len(read_clip(out / "side_by_side.mp4")[0]) == count
    assert (out / "panel.png").is_file()
    assert len(ply_depths(out / "cloud.ply")) == WIDTH * HEIGHT


def test_max_frames_before_the_cut_is_no_error(tmp_path: Path, network: Path) -> None:
    clip = save_clip(tmp_path / "clip.avi", 40, "MJPG")
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    assert run(clip, tmp_path / "out", network, "--hfov", 60, "--max-frames", 5)["frames"] == 5


def test_empty_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    refused(capfd, [tmp_path / "in", "--hfov", 60], f"{tmp_path / 'in'}: no image in this folder")


def test_folder_without_a_readable_image(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        (folder / name).write_bytes(b"nothing")
    argv = [folder, "--out", tmp_path / "out", "--model", network, "--hfov", 60]
    refused(capfd, argv, f"{folder}: none of its 2 image files can be read")


def test_outputs_that_cannot_be_written(
    tmp_path: Path, images: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    argv = [images, "--model", network, "--hfov", 60, "--out"]
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        refused(capfd, [*argv, out], f"{out}: cannot be made a folder", "--out")
    good = [*argv, tmp_path / "out", "--json"]
    refused(capfd, [*good, tmp_path / "no" / "f.json"], "f.json: cannot be written", "--json")
    refused(capfd, [*good, tmp_path], f"{tmp_path}: is a folder", "--json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_write_permission(
    tmp_path: Path, images: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    argv = [images, "--model", network, "--hfov", 60, "--out", out]
    refused(capfd, argv, "cannot be written (Permission denied)", "--out")


def test_models_that_cannot_be_used(
    tmp_path: Path, images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("this is not a network")
    bare = save_network(tmp_path / "bare.onnx", metadata=False)
    for path, words in (
        (tmp_path / "no.onnx", "no such model file"),
        (text, "not an ONNX file"),
        (bare, "has no 'mono_depth' metadata"),
    ):
        argv = [images, "--out", tmp_path / "out", "--hfov", 60, "--model", path]
        refused(capfd, argv, str(path), words)


def test_no_codec(tmp_path: Path, images: Path, network: Path) -> None:
    argv = (images, "--out", tmp_path / "out", "--model", network, "--hfov", 60)
    result = command(*argv, OPENCV_VIDEOIO_PRIORITY_FFMPEG="0")
    assert result.returncode == 1
    one_error(result.stderr, "side_by_side.mp4: this OpenCV has no MPEG-4 encoder", "install")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera_matrix": None}, "has no camera_matrix"),
        ({"image_width": None}, "has no image_width"),
        ({"camera_matrix": {"data": [1, 2, 3]}}, "camera_matrix has 3 numbers, not 9"),
        ({"camera_matrix": {"data": [0.0] * 9}, "projection_matrix": None}, "fx=0.0"),
        ({"distortion_coefficients": {"data": [0.1, 0.2]}}, "2 coefficients"),
        ({"distortion_model": "fov"}, "'fov' is unknown"),
        ({"image_width": "wide"}, "not a camera calibration"),
    ],
)
def test_camera_info_that_cannot_be_used(
    tmp_path: Path,
    images: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    info = save_camera_info(tmp_path / "camera.yaml", [0.0] * 12, **changes)
    refused(capfd, [images, "--camera-info", info], f"{info}: ", words)


def test_camera_info_that_is_no_yaml(
    tmp_path: Path, images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "camera.yaml"
    refused(capfd, [images, "--camera-info", info], f"{info}: No such file", "--camera-info")
    info.write_text("{")
    refused(capfd, [images, "--camera-info", info], f"{info}: not a YAML file")
    info.write_bytes(b"\xff\xfe\x00\x01")
    refused(capfd, [images, "--camera-info", info], f"{info}: not a")
    info.write_text("just a sentence")
    refused(capfd, [images, "--camera-info", info], f"{info}: not a camera calibration")


def test_calibration_of_another_view(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_folder(tmp_path / "in", 1, width=48, height=64)
    info = save_camera_info(tmp_path / "camera.yaml", [0.0] * 12)
    argv = [folder, "--out", tmp_path / "out", "--model", network, "--camera-info", info]
    refused(capfd, argv, f"{info}: ", "for 64x48, the image is 48x64", "--hfov")


def test_truth_that_cannot_be_used(
    tmp_path: Path, images: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth"
    argv = [images, "--out", tmp_path / "out", "--model", network, "--hfov", 60, "--truth", truth]
    refused(capfd, argv, f"{truth}: no such folder", "--truth")
    truth.mkdir()
    refused(capfd, argv, f"{truth}: no PNG in this folder")
    cv2.imwrite(str(truth / "a.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    refused(capfd, argv, f"{truth}: 1 depth PNGs for 2 frames")
    cv2.imwrite(str(truth / "0.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    refused(capfd, argv, f"{truth / '0.png'}: not a 16-bit single-channel PNG")
    cv2.imwrite(str(truth / "0.png"), np.zeros((24, 32), np.uint16))
    refused(capfd, argv, f"{truth / '0.png'}: 32x24, but the image is 64x48")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--fx 500", "give all four"),
        ("--distortion 0 0 0 0 0", "--distortion needs --fx"),
        ("--hfov 60 --fx 1 --fy 1 --cx 1 --cy 1", "give one of"),
        ("--hfov 180", "not between 0 and 180"),
        ("--min-depth 3 --max-depth 2", "empty range"),
        ("--max-depth nan", "empty range"),
        ("--every 0", "--every: 0 is not at least 1"),
        ("--max-frames -1", "--max-frames: -1 is not at least 1"),
        ("--fps 0", "--fps: 0 is not a positive number"),
        ("--fx zero", "--fx: invalid number value"),
        ("--engine magic", "--engine: invalid choice"),
    ],
)
def test_options_that_make_no_sense(
    options: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["images", *options.split()])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_interrupted_run_leaves_no_half_video(tmp_path: Path, network: Path) -> None:
    clip, out = save_clip(tmp_path / "clip.avi", 1500, "MJPG"), tmp_path / "out"
    process = subprocess.Popen(
        f"{sys.executable} -m mono_depth_ros.depth_video {clip} --hfov 60 --depth-png"
        f" --out {out} --model {network}".split(),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    deadline = time.monotonic() + 90
    while not (out / "depth" / "000003.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1].startswith("depth_video: interrupted")
    assert [entry.name for entry in out.iterdir()] == ["depth"]
