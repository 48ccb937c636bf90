"""Console script `depth_view`: a live view of camera, depth and cloud in Rerun; needs only pip."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mono_depth_ros.calibrated_view import CameraError, Views
from mono_depth_ros.camera_file import CameraFileError, read_camera_file
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.engines import ENGINES, EngineError
from mono_depth_ros.estimator import DepthEstimator, DepthFrame
from mono_depth_ros.frame_source import Frame, FrameSource, SourceError, open_source
from mono_depth_ros.mailbox import Mailboxes
from mono_depth_ros.model import ModelError, default_model
from mono_depth_ros.ros_process import dds_environment

if TYPE_CHECKING:
    from mono_depth_ros.rerun_recording import CameraRecording
    from mono_depth_ros.topic_view import TopicView

DEFAULT_HFOV_DEG = 60.0
DEFAULT_CAMERA = "camera"
WEB_PORT = 9090
# How long nothing may come before the user is told where to look.
PATIENCE_S = 5.0
_SILENCE_REMEDY = (
    "is the node active, --camera its namespace, and ROS_DOMAIN_ID the same? (ros2 topic list)"
)

_EPILOG = """\
examples:
  depth_view                                    the node's topics; opens a window
  depth_view --camera front --camera rear       two cameras, by their namespaces
  depth_view --serve                            on a robot without a screen: look with a browser
  depth_view --connect rerun+http://192.168.1.5:9876/proxy     ... or send to a `rerun` elsewhere
  depth_view --save run.rrd --seconds 30        look later: rerun run.rrd
  depth_view --source 0 --hfov 70               a webcam, without ROS; or a video, folder, bag

Topics can be renamed as for any node: depth_view --ros-args -r points:=/camera/points
"""


class ViewError(ValueError):
    """What keeps the view from working; the message names the remedy."""


_ERRORS = (CameraError, CameraFileError, EngineError, ModelError, SourceError, ViewError)


def _warn(message: str) -> None:
    print(f"depth_view: warning: {message}", file=sys.stderr)


# -- options ---------------------------------------------------------------------------------------


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


_positive.__name__ = "number"


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


_count.__name__ = "int"


def _memory(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?([kMGT]i?B|%)", text):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 500MB, 2GB or 25%")
    return text


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="depth_view",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--camera", action="append", metavar="NAMESPACE",
        help="namespace of a depth node; may be repeated [none: the root]",
    )  # fmt: skip
    parser.add_argument(
        "--image", metavar="TOPIC",
        help="image that is shown with the depth; .../compressed works too [image_rect]",
    )  # fmt: skip
    parser.add_argument(
        "--scan", action="store_true",
        help="show the scan too; the node must know how the camera is held (camera_height or tf)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=_positive, metavar="N", help="end after so long")
    parser.add_argument(
        "--max-points", type=_count, default=100_000, metavar="N",
        help="thins clouds to this; 0 does without, and the node need not make any [100000]",
    )  # fmt: skip
    parser.add_argument(
        "--max-depth", type=_positive, default=10.0, metavar="M", help="end of the colours [10]"
    )

    where = parser.add_argument_group("where to look (a window on this machine, if not said)")
    where = where.add_mutually_exclusive_group()
    where.add_argument("--save", type=Path, metavar="FILE", help="write an .rrd file")
    where.add_argument(
        "--serve", type=_count, nargs="?", const=WEB_PORT, metavar="PORT",
        help=f"web viewer on PORT, data on PORT+1 [{WEB_PORT}]",
    )  # fmt: skip
    where.add_argument("--connect", metavar="URL", help="of a viewer that is running")
    parser.add_argument(
        "--memory-limit", type=_memory, default="1GB", metavar="SIZE",
        help="history that the window or --serve keeps; older frames go [1GB]",
    )  # fmt: skip

    source = parser.add_argument_group("without ROS")
    source.add_argument(
        "--source", help="video, folder of images, bag (BAG:/TOPIC) or webcam number"
    )
    source.add_argument(
        "--hfov", type=_positive, metavar="DEG",
        help=f"horizontal field of view, if there is no calibration [{DEFAULT_HFOV_DEG:g}]",
    )  # fmt: skip
    source.add_argument(
        "--camera-info", type=Path, metavar="FILE", help="YAML that camera_calibration wrote"
    )
    source.add_argument("--model", type=Path, help="ONNX file [the one that ships]")
    source.add_argument("--engine", choices=ENGINES, default="auto", help="runtime [auto]")

    options, ros = argv, []
    if "--ros-args" in argv:
        start = argv.index("--ros-args")
        options, ros = argv[:start], argv[start:]
    args = parser.parse_args(options)
    args.ros = ros
    if args.source is None and (args.hfov or args.camera_info or args.model):
        parser.error("--hfov, --camera-info and --model are for --source; the node has its own")
    if args.source is not None and (args.camera or args.image or args.scan or ros):
        parser.error("--camera, --image, --scan and --ros-args are for topics, not for --source")
    if args.hfov is not None and args.camera_info is not None:
        parser.error("give one of --camera-info and --hfov")
    if args.hfov is not None and args.hfov >= 180:
        parser.error(f"--hfov {args.hfov:g} is not between 0 and 180 degrees")
    if args.serve is not None and not 0 < args.serve < 65535:
        parser.error(f"--serve {args.serve} is not a port; the one after it is needed too")
    return args


# -- ROS -------------------------------------------------------------------------------------------


def _show_topics(args: argparse.Namespace) -> None:
    """Shows what nodes publish, until the time is over.

    Raises:
        ViewError: ROS is not installed, or no depth came.
        SinkError: there is nothing to look with.
    """
    # Images need the profile on either side; a user's own choice stands.
    for name, value in dds_environment().items():
        if name.endswith("PROFILES_FILE"):
            os.environ.setdefault(name, value)
    try:
        # First of all: ROS from wheels starts this process again when it is imported.
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise ViewError(
            f"ROS 2 is not here ({error}); source its setup.bash, pip install -r"
            " requirements/ros.txt, or give a camera or file with --source"
        ) from None
    from mono_depth_ros.rerun_recording import STAMP, CameraRecording, layout
    from mono_depth_ros.rerun_sink import Sink
    from mono_depth_ros.topic_view import DEPTH, TopicView

    with ExitStack() as stack:
        context = Context()
        # Not rclpy's handlers: they shut the context down in the middle of things.
        rclpy.init(args=args.ros, context=context, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(context.try_shutdown)
        nodes = [Node("depth_view", namespace=n, context=context) for n in args.camera or [None]]
        executor = SingleThreadedExecutor(context=context)
        for node in nodes:
            stack.callback(node.destroy_node)
            executor.add_node(node)
        stack.callback(executor.shutdown)
        paths = [node.get_namespace().strip("/") or DEFAULT_CAMERA for node in nodes]
        sink = stack.enter_context(closing(Sink(*_where(args))))
        sink.send_layout(layout(paths, STAMP, with_points=args.max_points > 0))
        views = {}
        for node, path in zip(nodes, paths, strict=True):
            recording = CameraRecording(sink.stream, path, args.max_depth)
            views[node.resolve_topic_name(DEPTH)] = TopicView(
                node, recording, _warn, args.max_points, args.scan, args.image or "image_rect"
            )
        stack.callback(_print_counts, views)
        end = time.monotonic() + (args.seconds or math.inf)
        patience = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < end:
                # While a message is on its way no other is taken, and DDS keeps only the newest.
                if sink.delivered():
                    executor.spin_once(timeout_sec=0.1)
                if time.monotonic() > patience:
                    patience = math.inf
                    _warn_of_silence(views)
        except KeyboardInterrupt:
            pass  # the usual end
        if not any(view.counts[DEPTH] for view in views.values()):
            raise ViewError(f"no depth came on {', '.join(views)}; {_SILENCE_REMEDY}")


def _warn_of_silence(views: Mapping[str, TopicView]) -> None:
    for topic, view in views.items():
        if not any(view.counts.values()):
            _warn(f"nothing on {topic} and beside it yet; {_SILENCE_REMEDY}")


def _print_counts(views: Mapping[str, TopicView]) -> None:
    for topic, view in views.items():
        counts = ", ".join(f"{name} {count}" for name, count in view.counts.items())
        print(f"depth_view: shown beside {topic}: {counts}")


# -- without ROS -----------------------------------------------------------------------------------


def _newest(frames: Iterable[Frame]) -> Iterator[tuple[Frame, int]]:
    """The newest frame of a camera whenever one is asked for; those in between are dropped.

    Yields:
        A frame, and when it came: nanoseconds since 1970.

    Raises:
        SourceError: as `frames` does.
    """
    box: Mailboxes[str, tuple[Frame, int]] = Mailboxes()
    box.add("camera")
    errors: list[SourceError] = []
    ended = threading.Event()

    def read() -> None:
        try:
            for frame in frames:
                box.put("camera", (frame, time.time_ns()))
                if ended.is_set():
                    return
        except SourceError as error:
            errors.append(error)
        finally:
            box.close()

    reader = threading.Thread(target=read, name="camera", daemon=True)
    reader.start()
    try:
        while (item := box.take()) is not None:
            yield item[1]
    finally:
        ended.set()
        reader.join(timeout=PATIENCE_S)
    if errors:
        raise errors[0]


class _SourceView:
    """Shows estimates of one camera.

    Args:
        recording: where they go.
        max_points: of a cloud; 0 leaves clouds to the viewer.
    """

    def __init__(self, recording: CameraRecording, max_points: int) -> None:
        self._recording, self._max_points = recording, max_points
        self._builder: CloudBuilder | None = None
        self._last: float | None = None

    def show(self, result: DepthFrame) -> None:
        """Logs one estimate at the time that the recording was set to."""
        recording = self._recording
        recording.log_camera(result.camera)
        recording.log_image(result.image)
        recording.log_depth(result.depth)
        if self._max_points:
            recording.log_points(*self._points(result))
        total = result.preprocess_ms + result.engine_ms + result.postprocess_ms
        figures = {"engine_ms": result.engine_ms, "image_to_depth_ms": total}
        now = time.monotonic()
        if self._last is not None:
            figures["rate_hz"] = 1 / (now - self._last)
        self._last = now
        recording.log_figures(figures)

    def _points(self, result: DepthFrame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]:
        from mono_depth_ros.rerun_recording import thinning

        camera = result.camera
        if self._builder is None or self._builder.camera != camera:
            stride = thinning(camera.height, camera.width, self._max_points)
            self._builder = CloudBuilder(camera, stride)
        cloud = self._builder.build(result.depth, result.image)
        cloud = cloud[np.isfinite(cloud["z"])]
        return np.stack([cloud[name] for name in "xyz"], axis=-1), cloud["rgb"]


def _show_source(args: argparse.Namespace) -> None:
    """Estimates depth and shows it, until the source ends or the time is over.

    Raises:
        CameraError, CameraFileError, EngineError, ModelError, SourceError, SinkError: what the
            message says.
    """
    from mono_depth_ros.rerun_recording import FRAME, STAMP, VIDEO, CameraRecording, layout
    from mono_depth_ros.rerun_sink import Sink

    if args.camera_info is not None:
        views = Views(read_camera_file(args.camera_info), str(args.camera_info))
    else:
        if args.hfov is None:
            _warn(
                f"no intrinsics given: {DEFAULT_HFOV_DEG:g} deg across is a guess, and depth is off"
                " by as much as the focal length is; give --camera-info or --hfov"
            )
        views = Views(args.hfov or DEFAULT_HFOV_DEG, "--hfov")
    source = open_source(args.source, _warn)
    model = args.model or default_model()
    timeline = STAMP if source.live else VIDEO if source.fps else FRAME
    shown = 0
    with (
        closing(DepthEstimator.open(model, args.engine, max_depth=args.max_depth)) as estimator,
        closing(Sink(*_where(args))) as sink,
    ):
        sink.send_layout(layout([DEFAULT_CAMERA], timeline, with_points=args.max_points > 0))
        recording = CameraRecording(sink.stream, DEFAULT_CAMERA, args.max_depth)
        view = _SourceView(recording, args.max_points)
        end = time.monotonic() + (args.seconds or math.inf)
        try:
            with closing(_timed(source)) as frames:
                for frame, stamp, seconds in frames:
                    rectifier = views.at(frame.image.shape[1], frame.image.shape[0]).rectifier
                    result = estimator.estimate(
                        rectifier(frame.image), rectifier.camera, rectifier.outside
                    )
                    recording.set_time(frame.index, stamp_ns=stamp, video_s=seconds)
                    view.show(result)
                    shown += 1
                    while not sink.delivered() and time.monotonic() < end:
                        pass
                    if time.monotonic() >= end:
                        break
            if args.serve is not None:
                print("depth_view: that was all; Ctrl-C ends the server", flush=True)
                while time.monotonic() < end:
                    time.sleep(0.1)
        except KeyboardInterrupt:
            pass  # the usual end
        finally:
            print(f"depth_view: shown: {shown} frames of {args.source}")


def _timed(source: FrameSource) -> Generator[tuple[Frame, int | None, float | None], None, None]:
    """Frames with what is known of their time: a stamp in nanoseconds, or seconds of a video."""
    if source.live:
        for frame, stamp in _newest(source.frames(1)):
            yield frame, stamp, None
        return
    for frame in source.frames(1):
        yield frame, None, frame.index / source.fps if source.fps else None


def _where(
    args: argparse.Namespace,
) -> tuple[Path | None, str | None, int | None, str]:
    """The arguments of `Sink`."""
    return args.save, args.connect, args.serve, args.memory_limit


def main(argv: list[str] | None = None) -> int:
    """The command; `argv` without the program's name, None for the process's own.

    Returns:
        Exit status: 0 something was shown, 1 an error.

    Raises:
        SystemExit: wrong options (2) or --help (0).
    """
    args = _parse(sys.argv[1:] if argv is None else argv)
    # One line of ours says what is wrong; Rerun's SDK would write its own above it.
    os.environ.setdefault("RUST_LOG", "off")
    try:
        from mono_depth_ros.rerun_sink import SinkError
    except ImportError as error:
        print(
            f"depth_view: error: Rerun is not installed ({error}); pip install -r"
            " requirements/view.txt",
            file=sys.stderr,
        )
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if args.source is None:
            _show_topics(args)
        else:
            _show_source(args)
    except (*_ERRORS, SinkError) as error:
        print(f"depth_view: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # before anything could be shown
    return 0


if __name__ == "__main__":
    sys.exit(main())
