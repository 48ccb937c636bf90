"""The ROS 2 node: parameters, topics, QoS, lifecycle and threads around `DepthEstimator`."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from stereo_msgs.msg import DisparityImage

from mono_depth_ros import messages
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.colormap import colorize
from mono_depth_ros.engines import EngineError
from mono_depth_ros.engines.cache import default_cache_dir
from mono_depth_ros.estimator import DepthFrame, Rectifier
from mono_depth_ros.frame_statistics import FrameStatistics, FrameTiming
from mono_depth_ros.mailbox import Mailbox
from mono_depth_ros.model import ModelError
from mono_depth_ros.parameters import PARAMETERS, ParameterSpec, refusal
from mono_depth_ros.serving import Choice, Serving

# Publishers are reliable so that RViz, rosbag and depth_image_proc match, and keep two messages.
OUTPUT_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
# Depth 1: a frame that was not taken in time is worth nothing.
IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# A volatile subscription gets nothing from a camera that latched its calibration before we came.
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# camera_info is sent after its image; how long an image without a fitting one waits for it.
INFO_WAIT_S = 0.1
KEPT_INFOS = 30
REPEAT_ERROR_S = 5.0

OUTPUTS: dict[str, type] = {
    "depth/image_rect": Image,
    "depth/camera_info": CameraInfo,
    "points": PointCloud2,
    "depth/image_color": Image,
    "disparity": DisparityImage,
}


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description)
    if spec.choices:
        descriptor.additional_constraints = f"one of: {', '.join(spec.choices)}"
    if spec.minimum is not None and spec.maximum is not None:
        if isinstance(spec.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=spec.minimum, to_value=spec.maximum, step=0.0)
            ]
    return descriptor


class DepthNode(LifecycleNode):
    """Subscribes to a camera, publishes depth. See README for topics and parameters.

    The executor's thread only stores the newest image and answers services; one worker thread does
    the rest, so parameters and lifecycle answer while the network runs.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mono_depth", **kwargs)
        self._values: dict[str, Any] = {}
        self._configured = False
        for spec in PARAMETERS:
            parameter = self.declare_parameter(spec.name, spec.default, _descriptor(spec))
            self._values[spec.name] = parameter.value
        if reason := refusal(self._values, self._values, configured=False):
            raise ValueError(reason)
        self.add_on_set_parameters_callback(self._on_set_parameters)

        self._serving: Serving | None = None
        self._outputs: dict[str, Publisher[Any]] = {}
        self._inputs: list[Subscription[Any]] = []
        self._has_latched_input = False
        self._mailbox: Mailbox[Image | CompressedImage] | None = None
        self._worker: threading.Thread | None = None
        self._statistics = FrameStatistics()
        self._infos_changed = threading.Condition()
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._error = ""
        self._error_logged = 0.0
        self._error_lock = threading.Lock()
        # Per-camera state, rebuilt when the camera changes. Only the worker touches it.
        self._rgb: npt.NDArray[np.uint8] | None = None
        self._rectifier: tuple[Calibration, Rectifier] | None = None
        self._cloud: tuple[CloudBuilder, messages.CloudMessage] | None = None
        self._colour: npt.NDArray[np.uint8] | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reload_service = self.create_service(Trigger, "~/reload_model", self._on_reload_model)
        self._diagnostics_timer = self.create_timer(1.0, self._on_second)

    # Parameters

    def _on_set_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._values}
        if reason := refusal(changes, self._values, self._configured):
            return SetParametersResult(successful=False, reason=reason)
        # Replaced, not changed: the worker may be reading it.
        self._values = {**self._values, **changes}
        return SetParametersResult(successful=True)

    def _on_reload_model(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Starts loading what the parameters say now; /diagnostics tells how it went.

        Building an engine can take minutes, which a service call should not.
        """
        try:
            if self._serving is None:
                raise EngineError("the node is not configured; it loads the model when it is")
            choice = self._choice()
            self._serving.start_reload(choice)
        except (ModelError, EngineError) as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
            response.message = f"loading {choice.path}; /diagnostics tells when it takes over"
        return response

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        logger = self.get_logger()
        try:
            self._serving = Serving(self._choice(), logger.info, logger.warning)
        except (ModelError, EngineError, ValueError) as error:
            self._report(str(error))
            return TransitionCallbackReturn.FAILURE
        overrides = QoSOverridingOptions.with_default_policies()
        self._outputs = {
            topic: self.create_publisher(kind, topic, OUTPUT_QOS, qos_overriding_options=overrides)
            for topic, kind in OUTPUTS.items()
        }
        self._configured = True
        self._clear_error()
        for key, value in self._serving.describe().items():
            logger.info(f"{key}: {value}")
        logger.info(f"model: {self._serving.choice.path}")
        return TransitionCallbackReturn.SUCCESS

    def _choice(self) -> Choice:
        values = self._values
        try:
            folder = Path(values["cache_dir"]).expanduser()
        except RuntimeError as error:
            raise EngineError(f"cache_dir {values['cache_dir']}: {error}") from None
        return Choice(
            model=values["model"],
            engine=values["engine"],
            precision=values["precision"],
            cache_dir=folder if values["cache_dir"] else default_cache_dir(),
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._statistics = FrameStatistics()
        self._infos.clear()
        mailbox = self._mailbox = Mailbox()
        self._worker = threading.Thread(target=self._work, args=(mailbox,), name="depth")
        self._worker.start()
        overrides = QoSOverridingOptions.with_default_policies()
        compressed = self._values["image_transport"] == "compressed"
        self._inputs = [
            self.create_subscription(
                CompressedImage if compressed else Image,
                "image_raw/compressed" if compressed else "image_raw",
                self._on_image,
                IMAGE_QOS,
                qos_overriding_options=overrides,
            ),
            self.create_subscription(
                CameraInfo, "camera_info", self._on_info, qos_profile_sensor_data
            ),
        ]
        self._has_latched_input = False
        self._watch_for_latched_info()
        return super().on_activate(state)

    def _watch_for_latched_info(self) -> None:
        """Subscribes to calibrations that were latched before we came, where a camera does that.

        Other cameras would log a QoS warning about such a subscription, so it waits for one.
        """
        if self._mailbox is None or self._has_latched_input:
            return
        topic = self.resolve_topic_name("camera_info")
        publishers = self.get_publishers_info_by_topic(topic)
        if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
            self._has_latched_input = True
            self._inputs.append(
                self.create_subscription(CameraInfo, "camera_info", self._on_info, LATCHED_QOS)
            )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        """Ends subscriptions and the worker."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._mailbox is not None:
            self._mailbox.close()
        if self._worker is not None:
            self._worker.join()
        self._mailbox = self._worker = None

    def _release(self) -> None:
        """Ends publishers and the engine."""
        for publisher in self._outputs.values():
            self.destroy_publisher(publisher)
        self._outputs = {}
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        self._configured = False

    def destroy_node(self) -> None:
        self._stop()
        self._release()
        super().destroy_node()

    # Input, in the executor's thread

    def _on_image(self, message: Image | CompressedImage) -> None:
        if self._mailbox is not None:
            self._statistics.on_received(self._mailbox.put(message))

    def _on_info(self, message: CameraInfo) -> None:
        with self._infos_changed:
            self._infos[messages.stamp_ns(message.header)] = message
            while len(self._infos) > KEPT_INFOS:
                self._infos.popitem(last=False)
            self._infos_changed.notify_all()

    # Work, in the worker's thread

    def _work(self, mailbox: Mailbox[Image | CompressedImage]) -> None:
        while (message := mailbox.take()) is not None:
            wanted = {t for t, p in self._outputs.items() if p.get_subscription_count() > 0}
            if self._values["disparity_baseline"] == 0:
                wanted.discard("disparity")
            if not wanted:
                continue
            try:
                self._process(message, wanted)
            except (ValueError, EngineError) as error:
                self._statistics.on_failed()
                self._report(str(error))
            except Exception as error:  # one bad frame must not end the node
                if not self.context.ok():
                    return
                self._statistics.on_failed()
                self._report(f"unexpected {type(error).__name__}: {error}")

    def _process(self, message: Image | CompressedImage, wanted: set[str]) -> None:
        values, serving = self._values, self._serving
        assert serving is not None
        if isinstance(message, CompressedImage):
            image = messages.compressed_to_rgb(message)
        else:
            image = messages.image_to_rgb(message, out=self._rgb)
            if image.flags.owndata:  # and is no view of the message
                self._rgb = image
        camera, rectifier = self._camera(message, image.shape[1], image.shape[0])
        if rectifier is not None:
            image = rectifier(image)
        frame = self._estimate(serving, image, camera, rectifier.outside if rectifier else None)
        self._publish(frame, message, wanted, values)
        if frame.non_finite:
            self._report(
                f"the network returned {frame.non_finite} non-finite values;"
                " try precision float32 or another engine"
            )
        else:
            self._clear_error()
        self._statistics.on_published(
            FrameTiming(
                published=time.monotonic(),
                latency_ms=(self.get_clock().now().nanoseconds - messages.stamp_ns(message.header))
                * 1e-6,
                engine_ms=frame.engine_ms,
                invalid_share=1 - np.count_nonzero(np.isfinite(frame.depth)) / frame.depth.size,
            )
        )

    def _estimate(
        self,
        serving: Serving,
        image: npt.NDArray[np.uint8],
        camera: CameraModel,
        outside: npt.NDArray[np.bool_] | None,
    ) -> DepthFrame:
        """Depth from the engine that serves; if that fails on the GPU, from the next best one."""
        limits = self._values["min_depth"], self._values["max_depth"]
        estimator, frame = serving.current((image.shape[0], image.shape[1])), None
        estimator.set_range(*limits)
        try:
            frame = estimator.estimate(image, camera, outside)
            if not frame.non_finite:
                return frame
            failure = EngineError(f"{frame.non_finite} values are not finite")
        except EngineError as error:
            failure = error
        substitute = serving.replace(str(failure))
        if substitute is not None:
            substitute.set_range(*limits)
            return substitute.estimate(image, camera, outside)
        if frame is None:
            raise failure
        return frame

    def _camera(
        self, message: Image | CompressedImage, width: int, height: int
    ) -> tuple[CameraModel, Rectifier | None]:
        """The calibration that belongs to an image, and what rectifies it.

        Raises:
            ValueError: there is none, or it does not fit.
        """
        info = self._find_info(messages.stamp_ns(message.header), width, height)
        fallback = self._values["fallback_hfov_deg"]
        if info is None or info.k[0] == 0:
            if fallback > 0:
                return CameraModel.from_hfov(width, height, fallback), None
            if info is None:
                topic = self.resolve_topic_name("camera_info")
                raise ValueError(
                    f"no camera_info on {topic}; remap camera_info to the camera's topic, or set"
                    " the parameter fallback_hfov_deg"
                )
        calibration = messages.calibration_from_info(info)
        if calibration.image_size != (width, height):
            size = "x".join(map(str, calibration.image_size))
            raise ValueError(
                f"camera_info is for {size} images, the image is {width}x{height};"
                " make the camera driver publish a calibration of this size"
            )
        if not self._values["rectify"]:
            return calibration.rectified(), None
        if self._rectifier is None or self._rectifier[0] != calibration:
            self._rectifier = (calibration, Rectifier(calibration))
        rectifier = self._rectifier[1]
        return rectifier.camera, rectifier

    def _find_info(self, stamp: int, width: int, height: int) -> CameraInfo | None:
        """The camera_info of this stamp, else the newest one; waits a moment where the newest does
        not fit, since a calibration follows its image.
        """

        def fits() -> bool:
            if stamp in self._infos:
                return True
            newest = next(reversed(self._infos.values()), None)
            if newest is None or newest.k[0] == 0:
                # Nobody waits for a calibration that is not needed or will not get better.
                return newest is not None or self._values["fallback_hfov_deg"] > 0
            return messages.calibration_from_info(newest).image_size == (width, height)

        with self._infos_changed:
            self._infos_changed.wait_for(fits, timeout=INFO_WAIT_S)
            return self._infos.get(stamp) or next(reversed(self._infos.values()), None)

    def _publish(
        self,
        frame: DepthFrame,
        message: Image | CompressedImage,
        wanted: set[str],
        values: dict[str, Any],
    ) -> None:
        header, out = message.header, self._outputs
        if "depth/image_rect" in wanted:
            depth = messages.depth_message(frame.depth, values["depth_encoding"], header)
            out["depth/image_rect"].publish(depth)
        if "depth/camera_info" in wanted:
            out["depth/camera_info"].publish(messages.camera_info_message(frame.camera, header))
        if "points" in wanted:
            builder, cloud = self._cloud_for(frame.camera, values["cloud.stride"])
            builder.build(frame.depth, frame.image, out=cloud.points)
            out["points"].publish(cloud.message(header))
        if "depth/image_color" in wanted:
            if self._colour is None or self._colour.shape[:2] != frame.depth.shape:
                self._colour = np.empty((*frame.depth.shape, 3), np.uint8)
            low, high = values["min_depth"], values["max_depth"]
            colorize(frame.depth, low, high, out=self._colour)
            out["depth/image_color"].publish(messages.image_message(self._colour, "bgr8", header))
        if "disparity" in wanted:
            limits = (values["min_depth"], values["max_depth"])
            disparity = messages.disparity_message(
                frame.depth, frame.camera, values["disparity_baseline"], limits, header
            )
            out["disparity"].publish(disparity)

    def _cloud_for(
        self, camera: CameraModel, stride: int
    ) -> tuple[CloudBuilder, messages.CloudMessage]:
        if self._cloud is None or (self._cloud[0].camera, self._cloud[0].stride) != (
            camera,
            stride,
        ):
            builder = CloudBuilder(camera, stride)
            self._cloud = (builder, messages.CloudMessage(builder.height, builder.width))
        return self._cloud

    # Errors and diagnostics

    def _report(self, text: str) -> None:
        """Logs an error when it is new, and again every few seconds while it lasts."""
        now = time.monotonic()
        with self._error_lock:
            if text == self._error and now - self._error_logged < REPEAT_ERROR_S:
                return
            self._error, self._error_logged = text, now
        self.get_logger().error(text)

    def _clear_error(self) -> None:
        with self._error_lock:
            self._error = ""

    def _on_second(self) -> None:
        self._watch_for_latched_info()
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        status = DiagnosticStatus(
            name=f"{self.get_name()}: depth", hardware_id=self.get_namespace()
        )
        statistics, serving = self._statistics, self._serving
        age = statistics.seconds_since_publish(time.monotonic())
        with self._error_lock:
            error = self._error
        if error:
            status.level, status.message = DiagnosticStatus.ERROR, error
        elif serving is not None and serving.warning:
            status.level, status.message = DiagnosticStatus.WARN, serving.warning
        elif self._mailbox is None:
            status.level, status.message = DiagnosticStatus.OK, "not active"
        elif statistics.received == 0:
            topic = self.resolve_topic_name("image_raw")
            status.level = DiagnosticStatus.WARN
            status.message = f"no image on {topic} yet; remap image_raw to the camera's topic"
        else:
            status.level, status.message = DiagnosticStatus.OK, "running"
        entries = {key: f"{value:.4g}" for key, value in statistics.summary().items()}
        if age is not None:
            entries["seconds_since_publish"] = f"{age:.2f}"
        if serving is not None:
            entries |= serving.describe()
        status.values = [KeyValue(key=key, value=value) for key, value in entries.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


EXAMPLES = """examples:
  depth_node --ros-args -r image_raw:=/camera/image_raw -r camera_info:=/camera/camera_info
  depth_node --ros-args --params-file config/depth.yaml
  depth_node --ros-args -p engine:=onnx -p cloud.stride:=2
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="depth_node",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(remove_ros_args(["depth_node", *arguments])[1:])
    node: DepthNode | None = None
    try:
        rclpy.init(args=arguments)
        node = DepthNode()
        autostart = node.get_parameter("autostart").value
        if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, rclpy.exceptions.ParameterException) as error:
        print(f"depth_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
