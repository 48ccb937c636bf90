"""Console script `depth_video`: a video, webcam, folder of images or bag -> depth. No ROS."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mono_depth_ros import accuracy
from mono_depth_ros.atomic import replacing
from mono_depth_ros.bag_images import split_topic
from mono_depth_ros.calibrated_view import CameraError, Views
from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_file import CameraFileError, read_camera_file
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.engines import ENGINES, EngineError
from mono_depth_ros.estimator import DepthEstimator, DepthFrame
from mono_depth_ros.frame_source import (
    Frame,
    FrameSource,
    SourceError,
    TruncatedError,
    TruthFolder,
    open_source,
)
from mono_depth_ros.json_file import write_json
from mono_depth_ros.model import ModelError, default_model
from mono_depth_ros.mp4 import VideoWriteError, mp4_writer
from mono_depth_ros.panel import Panel, SideBySide
from mono_depth_ros.ply import write_ply

DEFAULT_OUT = Path("demo_out")
DEFAULT_HFOV_DEG = 60.0
DEFAULT_FPS = 15.0

_EPILOG = """\
examples:
  depth_video room.mp4 --hfov 69                      a video; field of view from the data sheet
  depth_video 0 --camera-info ~/.ros/camera_info/usb_cam.yaml       calibrated webcam; Ctrl-C ends
  depth_video images/ --fx 517 --fy 516 --cx 319 --cy 255 --depth-png --json figures.json
  depth_video rgb/ --camera-info cam.yaml --truth depth/ --truth-scale 0.0002     with accuracy

writes into --out: side_by_side.mp4, panel.png, cloud.ply, and depth/NNNNNN.png with --depth-png

  depth_video --bag in.mcap --out out.mcap            a copy with depth, camera_info and points
  depth_video --bag run:/left/image_raw --out run_with_depth --stride 2      one of several cameras
  depth_video --bag in.mcap --compare /camera/aligned_depth_to_color/image_raw --json figures.json

a bag is a folder, an .mcap or a .db3 file, to read and to write; it needs the package rosbags
"""


class OutputError(ValueError):
    """A result that cannot be written; the message names the file and the remedy."""


_ERRORS = (
    CameraError,
    CameraFileError,
    EngineError,
    ModelError,
    OutputError,
    SourceError,
    VideoWriteError,
)


def _warn(message: str) -> None:
    tqdm.write(f"depth_video: warning: {message}", file=sys.stderr)


def _quiet_libraries() -> None:
    """Keeps OpenCV and FFmpeg from writing lines of their own above our one-line errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    logging = getattr(cv2.utils, "logging", None)  # not in every OpenCV 4
    if logging is not None:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)


# -- options ---------------------------------------------------------------------------------------


def _at_least(minimum: int) -> Any:
    def convert(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text} is not at least {minimum}")
        return value

    convert.__name__ = "int"
    return convert


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


_positive.__name__ = "number"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="depth_video",
        description="Estimates metric depth for a video, a webcam or a folder of images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", nargs="?", help="video file, webcam number, image, folder of images, or bag"
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder [{DEFAULT_OUT}]; with --bag the bag to write"
    )
    parser.add_argument("--model", type=Path, help="ONNX file [the one that ships]")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="runtime [auto]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")

    camera = parser.add_argument_group("camera (the scale of depth is that of the focal length)")
    for name, what in (("fx", "focal length"), ("fy", "focal length")):
        camera.add_argument(f"--{name}", type=_positive, help=f"{what} in pixels")
    for name, what in (("cx", "principal point"), ("cy", "principal point")):
        camera.add_argument(f"--{name}", type=float, help=f"{what} in pixels")
    camera.add_argument(
        "--distortion", type=float, nargs=5, metavar=("K1", "K2", "P1", "P2", "K3"),
        help="plumb_bob coefficients; images are rectified",
    )  # fmt: skip
    camera.add_argument(
        "--camera-info", type=Path, metavar="FILE", help="YAML that camera_calibration wrote"
    )
    camera.add_argument(
        "--hfov", type=float, metavar="DEG",
        help=f"horizontal field of view, if there is no calibration [{DEFAULT_HFOV_DEG:g}]",
    )  # fmt: skip

    depth = parser.add_argument_group("depth")
    depth.add_argument("--min-depth", type=float, default=0.1, metavar="M", help="metres [0.1]")
    depth.add_argument("--max-depth", type=float, default=10.0, metavar="M", help="metres [10]")
    depth.add_argument(
        "--depth-png", action="store_true", help="16-bit PNGs, millimetres, 0 where invalid"
    )
    depth.add_argument(
        "--ply-frame", type=_at_least(0), metavar="N",
        help="frame of cloud.ply [the middle one; the last one of a webcam]",
    )  # fmt: skip
    depth.add_argument(
        "--truth", type=Path, metavar="DIR",
        help="16-bit depth PNGs, matched to the images by name, else by order",
    )  # fmt: skip
    depth.add_argument(
        "--truth-scale", type=_positive, default=0.001, metavar="M",
        help="metres per unit of --truth [0.001]",
    )  # fmt: skip

    frames = parser.add_argument_group("frames")
    frames.add_argument("--every", type=_at_least(1), default=1, metavar="N", help="[1]")
    frames.add_argument("--max-frames", type=_at_least(1), metavar="N", help="stop after so many")
    frames.add_argument(
        "--fps", type=_positive,
        help=f"of side_by_side.mp4 [the source's by --every; {DEFAULT_FPS:g} for images]",
    )  # fmt: skip

    bag = parser.add_argument_group("bag of ROS 2")
    bag.add_argument(
        "--bag", metavar="BAG[:/TOPIC]",
        help="bag, and the image topic if it has several cameras; the camera is that of its"
        " camera_info unless an option gives it",
    )  # fmt: skip
    bag.add_argument(
        "--compare", metavar="TOPIC", help="measured depth in the bag, registered to the images"
    )
    bag.add_argument(
        "--namespace", metavar="NS", help="of the new topics [that of the image topic]"
    )
    bag.add_argument("--camera-info-topic", metavar="TOPIC", help="[beside the image topic]")
    bag.add_argument(
        "--depth-encoding", choices=("32FC1", "16UC1"), default="32FC1",
        help="metres or millimetres [32FC1]",
    )  # fmt: skip
    bag.add_argument(
        "--stride", type=_at_least(1), default=1, metavar="N",
        help="the points of every N-th row and column [1]",
    )  # fmt: skip

    args = parser.parse_args([_plain(token) for token in argv])
    if (args.source is None) == (args.bag is None):
        parser.error("give a source, or --bag")
    if args.bag is None:
        _refuse(parser, args, ("compare", "namespace", "camera_info_topic"), "needs --bag")
        args.out = args.out or DEFAULT_OUT
    else:
        pictures = ("fx", "depth_png", "ply_frame", "truth", "max_frames", "fps")
        _refuse(parser, args, pictures, "is not for --bag")
        if args.out is None and args.compare is None:
            parser.error("--bag needs --out, --compare, or both")
    intrinsics = [getattr(args, name) is not None for name in ("fx", "fy", "cx", "cy")]
    if any(intrinsics) and not all(intrinsics):
        parser.error("--fx --fy --cx --cy go together; give all four")
    if args.distortion and not all(intrinsics):
        parser.error("--distortion needs --fx --fy --cx --cy")
    if all(intrinsics) + (args.camera_info is not None) + (args.hfov is not None) > 1:
        parser.error("give one of --camera-info, --hfov, or --fx --fy --cx --cy")
    if args.hfov is not None and not 0 < args.hfov < 180:
        parser.error(f"--hfov {args.hfov:g} is not between 0 and 180 degrees")
    if not 0 <= args.min_depth < args.max_depth < math.inf:
        parser.error(
            f"--min-depth {args.min_depth:g} --max-depth {args.max_depth:g} is an empty range"
        )
    return args


def _refuse(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: tuple[str, ...], why: str
) -> None:
    for name in names:
        if getattr(args, name):
            parser.error(f"--{name.replace('_', '-')} {why}")


def _plain(token: str) -> str:
    """Writes -1e-3 as -0.001: argparse takes a minus sign with an exponent for an option."""
    exponent = re.fullmatch(r"-(\d+\.?\d*|\.\d+)[eE][-+]?\d{1,2}", token)
    return f"{float(token):.20f}" if exponent else token


# -- files -----------------------------------------------------------------------------------------


def _rehearse(path: Path, option: str) -> None:
    """Finds out whether `path` can be written before an hour of work depends on it.

    Raises:
        OutputError: it cannot.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; set {option}")
        trial = path.with_name(f".{path.name}.trial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); set {option}") from None


def _prepare(args: argparse.Namespace) -> None:
    """Makes the output folders and makes sure that files can be written there."""
    try:
        (args.out / "depth" if args.depth_png else args.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{args.out}: cannot be made a folder ({error.strerror}); choose another with --out"
        ) from None
    _rehearse(args.out / "panel.png", "--out")
    if args.json is not None:
        _rehearse(args.json, "--json")


def _write_png(path: Path, picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _middle(source: FrameSource, every: int, max_frames: int | None) -> int | None:
    """Number of the frame in the middle of those to be processed; None if nobody knows."""
    counts = [max_frames] if max_frames is not None else []
    if source.length is not None:
        counts.append(math.ceil(source.length / every))
    return min(counts) // 2 * every if counts else None


class _Pictures:
    """The files that grow while frames come.

    Args:
        args: the options.
        source: gives the frame rate, and which frame is the middle one.
        first: the first image, HxWx3; its shape is that of the tiles.
        stack: ends the video; unless an exception passes, the file appears then.

    Raises:
        VideoWriteError: there is no encoder.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        source: FrameSource,
        first: npt.NDArray[np.uint8],
        stack: ExitStack,
    ) -> None:
        self._args = args
        wanted = args.ply_frame
        self._wanted = _middle(source, args.every, args.max_frames) if wanted is None else wanted
        self._cloud: tuple[int, DepthFrame] | None = None
        size, limits = (first.shape[1], first.shape[0]), (args.min_depth, args.max_depth)
        self._side_by_side = SideBySide(*size, *limits)
        self._panel = Panel(*size, *limits, with_truth=args.truth is not None)
        fps = args.fps or (source.fps / args.every if source.fps else DEFAULT_FPS)
        self._write = stack.enter_context(
            mp4_writer(args.out / "side_by_side.mp4", fps, self._side_by_side.size)
        )

    def add(
        self,
        frame: Frame,
        result: DepthFrame,
        truth: npt.NDArray[np.float32] | None,
        figures: accuracy.Accuracy | None,
    ) -> None:
        """Adds one frame.

        Raises:
            OSError: a file cannot be written.
        """
        args, image, depth = self._args, result.image, result.depth
        self._write(self._side_by_side.draw(image, depth))
        self._panel.add(frame.name, image, depth, truth, figures)
        if args.depth_png:
            _write_png(args.out / "depth" / f"{frame.index:06d}.png", millimetres(depth))
        if self._cloud is None or self._wanted is None or self._cloud[0] < self._wanted:
            # Copies, since the estimator overwrites its arrays.
            kept = replace(result, depth=depth.copy(), image=image.copy())
            self._cloud = frame.index, kept

    def finish(self) -> dict[str, Any]:
        """Writes panel and cloud once all frames are there.

        Returns:
            Of the cloud: its frame, number of points, and camera.

        Raises:
            OSError: a file cannot be written.
        """
        assert self._cloud is not None, "no frame was added"
        _write_png(self._args.out / "panel.png", self._panel.draw())
        index, result = self._cloud
        asked = self._args.ply_frame
        if asked is not None and index < asked:
            _warn(f"--ply-frame {asked} is after the last frame; cloud.ply is frame {index}")
        cloud = CloudBuilder(result.camera).build(result.depth, result.image)
        points = write_ply(self._args.out / "cloud.ply", cloud)
        return {"frame": index, "points": points, "camera": asdict(result.camera)}


# -- run -------------------------------------------------------------------------------------------


def _views(args: argparse.Namespace, first: Frame) -> Views:
    """What the options say of the camera; --fx ... are for the size of the first image."""
    height, width = first.image.shape[:2]
    if args.fx is not None:
        k = (args.fx, 0.0, args.cx, 0.0, args.fy, args.cy, 0.0, 0.0, 1.0)
        d = tuple(args.distortion or ())
        return Views(Calibration(width, height, k, d, "plumb_bob"), "--fx --fy --cx --cy")
    if args.hfov is None:
        _warn(
            f"no intrinsics given: {DEFAULT_HFOV_DEG:g} deg across is a guess, and depth is off by"
            " as much as the focal length is; give --camera-info or --hfov"
        )
    return Views(args.hfov or DEFAULT_HFOV_DEG, "--hfov")


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _process(args: argparse.Namespace) -> tuple[dict[str, Any], TruncatedError | None]:
    """Does all the work.

    Returns:
        The figures, and what cut the source short, if anything did.
    """
    skipped: list[str] = []

    def skip(message: str) -> None:
        skipped.append(message)
        _warn(message)

    # In the order of what they take, so that a wrong file shows before anything slow happens.
    views: Views | None = None
    if args.camera_info is not None:
        views = Views(read_camera_file(args.camera_info), str(args.camera_info))
    source = open_source(args.source, skip)
    truths = TruthFolder(args.truth, args.truth_scale, source) if args.truth else None
    _prepare(args)
    model = args.model or default_model()
    estimator = DepthEstimator.open(
        model, args.engine, min_depth=args.min_depth, max_depth=args.max_depth
    )
    pictures: _Pictures | None = None
    accuracies: list[accuracy.Accuracy] = []
    engine_ms: list[float] = []
    total_ms: list[float] = []
    truncated: TruncatedError | None = None
    total = math.ceil(source.length / args.every) if source.length else args.max_frames
    if total and args.max_frames:
        total = min(total, args.max_frames)
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(estimator.close)
        bar = stack.enter_context(tqdm(total=total, unit="frame", disable=None))
        try:
            for frame in source.frames(args.every):
                views = views or _views(args, frame)
                view = views.at(frame.image.shape[1], frame.image.shape[0])
                result = estimator.estimate(
                    view.rectifier(frame.image), view.rectifier.camera, view.rectifier.outside
                )
                truth = truths.depth(frame) if truths else None
                figures = None
                if truth is not None:
                    truth = view.rectify_depth(truth)
                    figures = accuracy.measure(result.depth, truth)
                    accuracies += [figures] if figures else []
                pictures = pictures or _Pictures(args, source, frame.image, stack)
                pictures.add(frame, result, truth, figures)
                engine_ms.append(result.engine_ms)
                total_ms.append(result.preprocess_ms + result.engine_ms + result.postprocess_ms)
                bar.update()
                if len(engine_ms) == args.max_frames:
                    break
        except TruncatedError as error:
            truncated = error
        except KeyboardInterrupt:
            if not source.live or not engine_ms:
                raise
        seconds = time.perf_counter() - started
        assert pictures is not None, "a source without frames raises"
        cloud = pictures.finish()
        described = estimator.engine.describe()
    if truths and not accuracies:
        _warn(f"{args.truth}: no measured pixel coincides with an estimate; no accuracy given")
    return {
        "source": args.source,
        "model": str(model),
        "engine": described,
        "depth_range_m": [args.min_depth, args.max_depth],
        "frames": len(engine_ms),
        "skipped": len(skipped),
        "frames_per_second": round(len(engine_ms) / seconds, 2),
        "engine_ms": _percentiles(engine_ms),
        "image_to_depth_ms": _percentiles(total_ms),
        "accuracy": asdict(accuracy.mean(accuracies)) if accuracies else None,
        "accuracy_images": len(accuracies),
        "cloud": cloud,
        "out": str(args.out),
    }, truncated


_CAMERA = "{width}x{height}, fx {fx:.1f} fy {fy:.1f} cx {cx:.1f} cy {cy:.1f}"


def _table(figures: dict[str, Any]) -> str:
    """The figures for reading."""
    cloud, engine, total = (figures[name] for name in ("cloud", "engine_ms", "image_to_depth_ms"))
    rows = {
        "engine": figures["engine"],
        "camera": _CAMERA.format(**cloud["camera"]),
        "frames": f"{figures['frames']}, skipped {figures['skipped']}",
        "network": f"p50 {engine['p50']:.1f} ms, p95 {engine['p95']:.1f} ms",
        "image to depth": f"p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms",
        "all, with files": f"{figures['frames_per_second']:.1f} frames/s",
    }
    if figures["accuracy"]:
        rows["accuracy"] = (
            "AbsRel {abs_rel:.3f}, delta1 {delta1:.3f}, median depth/truth {scale:.3f},"
            " coverage {coverage:.3f}"
        ).format(**figures["accuracy"])
        rows["accuracy"] += f" ({figures['accuracy_images']} images)"
    rows["written to"] = (
        f"{figures['out']} (cloud of frame {cloud['frame']}, {cloud['points']} points)"
    )
    return "\n".join(f"{name:16}{value}" for name, value in rows.items())


def _process_bag(args: argparse.Namespace) -> dict[str, Any]:
    """Does all the work for a bag; gives the figures."""
    try:
        from mono_depth_ros.bag_depth import BagDepth, BagRequest, BagWriteError
    except ImportError as error:
        raise SourceError(
            f"{args.bag}: rosbags is not installed ({error}); pip install rosbags"
        ) from None
    known: Views | None = None
    if args.camera_info is not None:
        known = Views(read_camera_file(args.camera_info), str(args.camera_info))
    elif args.hfov is not None:
        known = Views(args.hfov, "--hfov")
    if args.json is not None:
        _rehearse(args.json, "--json")
    bag, topic = split_topic(args.bag)
    request = BagRequest(
        bag,
        topic,
        out=args.out,
        namespace=args.namespace,
        info_topic=args.camera_info_topic,
        compare=args.compare,
        encoding=args.depth_encoding,
        stride=args.stride,
        every=args.every,
    )
    model = args.model or default_model()
    try:
        work = BagDepth(request, known, _warn)
        estimator = DepthEstimator.open(
            model, args.engine, min_depth=args.min_depth, max_depth=args.max_depth
        )
        with closing(estimator):
            figures = work.run(estimator)
            described = estimator.engine.describe()
    except BagWriteError as error:
        raise OutputError(str(error)) from None
    figures["engine_ms"] = _percentiles(figures["engine_ms"])
    return {
        "model": str(model),
        "engine": described,
        "depth_range_m": [args.min_depth, args.max_depth],
        **figures,
    }


def _bag_table(figures: dict[str, Any]) -> str:
    """The figures for reading."""
    engine = figures["engine_ms"]
    rows = {
        "engine": figures["engine"],
        "camera": _CAMERA.format(**figures["camera"]),
        "frames": f"{figures['frames']} on {figures['image_topic']}, skipped {figures['skipped']}",
        "network": f"p50 {engine['p50']:.1f} ms, p95 {engine['p95']:.1f} ms,"
        f" {figures['network_share']:.0%} of the time",
        "all": f"{figures['frames_per_second']:.1f} frames/s",
    }
    if figures["out"]:
        rows["written to"] = f"{figures['out']}: {', '.join(figures['new_topics'])}"
    lines = [f"{name:16} {value}" for name, value in rows.items()]
    if figures["comparison"]:
        from mono_depth_ros.bag_compare import comparison_table

        lines += ["", comparison_table(figures["comparison"])]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command; `argv` without the program's name, None for the process's own.

    Returns:
        Exit status: 0 all frames are done, 1 an error, 130 interrupted.

    Raises:
        SystemExit: wrong options (2) or --help (0).
    """
    args = _parse(sys.argv[1:] if argv is None else argv)
    _quiet_libraries()
    try:
        truncated = None
        if args.bag is not None:
            figures = _process_bag(args)
            print(_bag_table(figures))
        else:
            figures, truncated = _process(args)
            print(_table(figures))
        if args.json is not None:
            with replacing(args.json) as temporary:
                write_json(temporary, figures)
    except _ERRORS as error:
        print(f"depth_video: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # What could not be written was found out before; this is a disk that filled up.
        where = error.filename or args.out or args.json
        print(f"depth_video: error: {where}: {error.strerror}; set --out", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        missing = args.out if args.bag else "side_by_side.mp4"
        what = f"; {missing} was not written" if missing else ""
        print(f"depth_video: interrupted{what}", file=sys.stderr)
        return 130
    if truncated is not None:
        print(f"depth_video: error: {truncated}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
