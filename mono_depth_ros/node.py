"""The ROS 2 node: parameters, topics, QoS, lifecycle and threads around `DepthEstimator`."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError
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
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_srvs.srv import Trigger
from stereo_msgs.msg import DisparityImage

from mono_depth_ros import messages
from mono_depth_ros.aspect import window_size
from mono_depth_ros.calibration_buffer import CalibrationBuffer
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.camera_info import UncalibratedError, already_rectified
from mono_depth_ros.depth_worker import DepthWorker
from mono_depth_ros.engines import EngineError
from mono_depth_ros.engines.cache import default_cache_dir
from mono_depth_ros.estimator import DepthFrame, Rectifier
from mono_depth_ros.frame_outputs import FrameOutputs, Shot
from mono_depth_ros.frame_statistics import FrameStatistics, FrameTiming
from mono_depth_ros.health import Level, Observation, assess
from mono_depth_ros.model import ModelError
from mono_depth_ros.output_profiles import (
    OUTPUTS,
    PROFILES,
    Topic,
    profile_frames,
    profile_topics,
)
from mono_depth_ros.parameters import PARAMETERS, ParameterSpec, refusal
from mono_depth_ros.serving import Choice, Serving
from mono_depth_ros.tf_frames import TfFrames

# Depth 1: a frame that was not taken in time is worth nothing.
IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# A volatile subscription gets nothing from a camera that latched its calibration before we came.
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Of an output's QoS, what `qos_overrides` may change.
OUTPUT_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
# camera_info is sent after its image; how long an image without a fitting one waits for it.
INFO_WAIT_S = 0.1
# The log hears again of an error that lasts after this long, and of another one after this long.
REPEAT_ERROR_S, OTHER_ERROR_S = 5.0, 1.0
# After a signal, a frame or a model that is being loaded is given this long to be finished.
LEAVE_S = 1.0
# A thread that waits for Python's lock gets it after this long; the default is 5 ms, and several
# threads hand a frame on to each other.
SWITCH_S = 0.0001
# How often to look who subscribes. Events of publishers would tell sooner, but every one of them
# costs each wait of the executor, and Humble has none.
DEMAND_PERIOD_S = 0.2
# The camera's images are subscribed to for this long after the last subscriber has left.
IDLE_AFTER_S = 2.0

MESSAGE_TYPES: dict[str, type] = {
    "sensor_msgs/msg/CameraInfo": CameraInfo,
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/LaserScan": LaserScan,
    "sensor_msgs/msg/PointCloud2": PointCloud2,
    "stereo_msgs/msg/DisparityImage": DisparityImage,
}


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    unit = f" [{spec.unit}]" if spec.unit else ""
    descriptor = ParameterDescriptor(description=spec.description + unit)
    descriptor.dynamic_typing = spec.takes_switch
    constraints = [f"one of: {', '.join(spec.choices)}"] if spec.choices else []
    if spec.reloadable:
        constraints.append("read when the node is configured, and by ~/reload_model")
    elif not spec.live:
        constraints.append("read when the node is configured")
    descriptor.additional_constraints = "; ".join(constraints)
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
    """Subscribes to a camera, publishes depth. See docs/interface.md for topics and parameters.

    The executor's thread only stores the newest image and answers services; a worker thread does
    the rest, so parameters and lifecycle answer while the network runs.

    Args:
        worker: shared by the nodes of a process; None makes one of its own.
        camera_name: what the parameter of this name means when it is empty; empty means the
            default of the profile.
        kwargs: of `rclpy.node.Node`.

    Raises:
        ValueError: the parameters contradict each other.
        ParameterException: one has another type than it should, or is out of its range.
    """

    def __init__(
        self, worker: DepthWorker | None = None, camera_name: str = "", **kwargs: Any
    ) -> None:
        super().__init__("mono_depth", **kwargs)
        self._camera_name = camera_name
        self._values: dict[str, Any] = {}
        self._configured = False
        self._depth_worker = worker or DepthWorker()
        self._serving: Serving | None = None
        self._tf = TfFrames(self)
        self._outputs: FrameOutputs | None = None
        self._output_publishers: list[Publisher[Any]] = []
        self._image_input: Subscription[Any] | None = None
        self._info_inputs: list[Subscription[Any]] = []
        self._active = self._shut_down = False
        self._last_wanted = -math.inf
        self._statistics = FrameStatistics()
        self._calibrations = CalibrationBuffer(messages.calibration_from_serialised)
        self._error = ""
        self._missing = ""
        # The text that was logged last, and when.
        self._logged = ("", -math.inf)
        self._error_lock = threading.Lock()
        # Per-camera state, rebuilt when the camera changes. Only the worker touches it.
        self._rgb: npt.NDArray[np.uint8] | None = None
        self._rectifier: tuple[Calibration, Rectifier] | None = None
        self._scale_source = ""
        self._period = 0.0
        for spec in PARAMETERS:
            parameter = self.declare_parameter(spec.name, spec.default, _descriptor(spec))
            self._values[spec.name] = spec.value(parameter.value)
        if reason := refusal(self._values, self._values, configured=False):
            raise ValueError(reason)
        self.add_on_set_parameters_callback(self._on_set_parameters)

        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reload_service = self.create_service(Trigger, "~/reload_model", self._on_reload_model)
        # Of their own clock: that of a simulator may stand still, jump, or not be there.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(1.0, self._on_second, clock=clock)
        self._demand_timer = self.create_timer(DEMAND_PERIOD_S, self._follow_demand, clock=clock)

    # Parameters

    def _on_set_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._values}
        if reason := refusal(changes, self._values, self._configured):
            return SetParametersResult(successful=False, reason=reason)
        for spec in PARAMETERS:
            if spec.name in changes:
                changes[spec.name] = spec.value(changes[spec.name])
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
            for other in self._depth_worker.sharers(self):
                if isinstance(other, DepthNode) and other._choice() != choice:
                    raise EngineError(
                        f"{other.get_fully_qualified_name()} uses the same engine; set its model,"
                        " engine and precision likewise first, or clean this node up and configure"
                        " it again for an engine of its own"
                    )
            self._serving.start_reload(choice)
        except (ModelError, EngineError) as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
            response.message = f"loading {choice.path}; /diagnostics tells when it takes over"
        return response

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and creates the publishers."""
        return self._try(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listens to the camera."""
        return self._try(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops listening, once the frame that is being worked on is published."""
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the network and the publishers."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Both, from any state."""
        self._shut_down = True
        return self.on_error(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves nothing behind; the node can be configured again."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__change_state(  # noqa: N802 - its mangled name in rclpy
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        """Without this, rclpy up to Jazzy never answers who asks for a transition that the state
        does not have.
        """
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except RuntimeError as error:  # RCLError
            self.get_logger().error(f"transition {transition_id} is refused: {_unexpected(error)}")
            return TransitionCallbackReturn.ERROR

    def _try(self, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """Runs a transition; one that fails says why, and leaves the node as it was."""
        try:
            transition()
        except (ModelError, EngineError, ValueError) as error:
            reason = str(error)
        except Exception as error:  # whatever it is, an operator can only act on its text
            reason = _unexpected(error)
        else:
            return TransitionCallbackReturn.SUCCESS
        if self._active:
            self._stop()
        if not self._configured:
            self._release()
        # However soon after the last one: somebody waits for it.
        self._logged = ("", -math.inf)
        self._report(reason)
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        logger, values = self.get_logger(), self._values
        self._serving = self._depth_worker.open(self, self._choice(), logger.info, logger.warning)
        profile = PROFILES[values["profile"]]
        name = values["camera_name"] or self._camera_name
        topics = self._not_heard(profile_topics(profile, name))
        outputs = [(topic, self._publisher(topic)) for topic in topics]
        self._outputs = FrameOutputs(profile, outputs, self._tf, values["publish_tf"])
        if values["publish_tf"]:
            self._tf.broadcast(profile_frames(profile, name))
        self._configured = True
        self._clear_error()
        for key, value in self._serving.describe().items():
            logger.info(f"{key}: {value}")
        logger.info(f"model: {self._serving.choice.path}")

    def _not_heard(self, topics: Sequence[Topic]) -> list[Topic]:
        """Those topics that the node does not listen to.

        An image that is called image_rect, or that a driver's profile calls its own, is there
        already: a node that published it as well would listen to itself.

        Raises:
            ValueError: it would listen to its own depth.
        """
        image = self.resolve_topic_name(self._image_topic())
        # Who publishes the compressed image publishes the raw one as well.
        inputs = {image, image.removesuffix("/compressed"), self.resolve_topic_name("camera_info")}
        kept = []
        for topic in topics:
            name = self.resolve_topic_name(topic.name)
            if name not in inputs:
                kept.append(topic)
            elif topic.output == "depth":
                raise ValueError(f"{name} is an input and depth as well; remap either")
            else:
                self.get_logger().info(f"{name} is not published: it is an input")
        return kept

    def _publisher(self, topic: Topic) -> Publisher[Any]:
        qos = QoSProfile(
            history=HistoryPolicy[topic.qos.history.upper()],
            depth=topic.qos.depth,
            reliability=ReliabilityPolicy[topic.qos.reliability.upper()],
            durability=DurabilityPolicy[topic.qos.durability.upper()],
        )
        publisher = self.create_publisher(
            MESSAGE_TYPES[OUTPUTS[topic.output]],
            topic.name,
            qos,
            qos_overriding_options=QoSOverridingOptions(OUTPUT_POLICIES),
        )
        self._output_publishers.append(publisher)
        return publisher

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

    def _activate(self) -> None:
        self._statistics = FrameStatistics()
        self._calibrations = CalibrationBuffer(messages.calibration_from_serialised)
        self._active = True
        self._last_wanted = -math.inf
        self._depth_worker.attach(self, self._work)
        self._follow_demand()

    def _listen_to_infos(self) -> None:
        """Subscribes to calibrations."""
        if not self._info_inputs:
            self._info_inputs.append(self._info_input(qos_profile_sensor_data))
            self._watch_for_latched_info()

    def _watch_for_latched_info(self) -> None:
        """Subscribes to calibrations that were latched before we came, where a camera does that.

        Other cameras would log a QoS warning about such a subscription, so it waits for one.
        """
        if len(self._info_inputs) != 1:
            return
        topic = self.resolve_topic_name("camera_info")
        publishers = self.get_publishers_info_by_topic(topic)
        if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
            self._info_inputs.append(self._info_input(LATCHED_QOS))

    def _info_input(self, qos: QoSProfile) -> Subscription[Any]:
        # As bytes, which costs little: they come with every image and say the same.
        return self.create_subscription(CameraInfo, "camera_info", self._on_info, qos, raw=True)

    def _image_topic(self) -> str:
        compressed = self._values["image_transport"] == "compressed"
        return "image_raw/compressed" if compressed else "image_raw"

    def _follow_demand(self) -> None:
        """Listens to the camera only while somebody wants what is made of its images.

        Before that it listens for one calibration, since some cameras send theirs only once.
        """
        if not self._active or self._outputs is None:
            return
        now = time.monotonic()
        if self._outputs.wanted(self._values):
            self._last_wanted = now
        if now - self._last_wanted <= IDLE_AFTER_S:
            self._listen_to_infos()
            if self._image_input is None:
                self._image_input = self._open_image_input()
        else:
            self._end_image_input()
            self._tf.stop_listening()
            if self._calibrations.empty:
                self._listen_to_infos()
            else:
                self._end_info_inputs()

    def _open_image_input(self) -> Subscription[Any]:
        topic = self._image_topic()
        return self.create_subscription(
            CompressedImage if topic.endswith("/compressed") else Image,
            topic,
            self._on_image,
            IMAGE_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _end_image_input(self) -> None:
        if self._image_input is None:
            return
        self.destroy_subscription(self._image_input)
        self._image_input = None
        self._statistics.on_idle()
        self._clear_error()

    def _end_info_inputs(self) -> None:
        for subscription in self._info_inputs:
            self.destroy_subscription(subscription)
        self._info_inputs = []
        self._calibrations.pause()

    def _stop(self) -> None:
        """Ends the subscriptions, and the work on the last frame."""
        self._active = False
        self._end_image_input()
        self._end_info_inputs()
        self._depth_worker.detach(self)
        self._tf.stop_listening()
        # Of the last frame, which may have come after all.
        self._clear_error()

    def _release(self) -> None:
        """Ends publishers and the engine."""
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        for publisher in self._output_publishers:
            self.destroy_publisher(publisher)
        self._output_publishers = []
        self._tf.forget()
        self._serving = None
        self._depth_worker.release(self)
        self._configured = False

    def destroy_node(self) -> None:
        """Frees everything."""
        self._stop()
        self._release()
        super().destroy_node()

    # Input, in the executor's thread

    def _on_image(self, message: Image | CompressedImage) -> None:
        replaced_older = self._depth_worker.put(self, message)
        self._statistics.on_received(time.monotonic(), replaced_older)

    def _on_info(self, serialised: bytes) -> None:
        self._calibrations.put(serialised)

    # Work, in the worker's thread

    def _work(self, message: Image | CompressedImage) -> None:
        outputs, values = self._outputs, self._values
        if outputs is None:
            return
        try:
            if not (wanted := outputs.wanted(values)):
                return
            shot, outside = self._shot(message, values)
            frame, self._missing = outputs.publish(
                wanted, shot, lambda: self._estimate(shot.image, shot.camera, outside, values)
            )
        except (ValueError, EngineError) as error:
            self._statistics.on_failed()
            self._report(str(error))
            return
        except Exception as error:  # one bad frame must not end the node
            if self.context.ok():
                self._statistics.on_failed()
                self._report(_unexpected(error))
            return
        if frame.non_finite:
            self._report(
                f"the network returned {frame.non_finite} non-finite values;"
                " try precision float32 or another engine"
            )
        else:
            self._clear_error()
        age = self.get_clock().now().nanoseconds - messages.stamp_ns(message.header)
        self._statistics.on_published(
            FrameTiming(
                published=time.monotonic(),
                latency_ms=age * 1e-6,
                engine_ms=frame.engine_ms,
                invalid_share=1 - frame.valid / frame.depth.size,
            )
        )

    def _shot(
        self, message: Image | CompressedImage, values: dict[str, Any]
    ) -> tuple[Shot, npt.NDArray[np.bool_] | None]:
        """The rectified image of a message, and a mask of pixels that it does not cover.

        Raises:
            ValueError: the image or its calibration cannot be used.
        """
        if isinstance(message, CompressedImage):
            image = messages.compressed_to_rgb(message, out=self._rgb)
        else:
            image = messages.image_to_rgb(message, out=self._rgb)
        if image.flags.owndata:  # and is no view of the message
            self._rgb = image
        camera, rectifier = self._camera(message, image.shape[1], image.shape[0])
        if rectifier is not None:
            image = rectifier(image)
        shot = Shot(image, camera, message.header, values, self._period)
        return shot, rectifier.outside if rectifier else None

    def _estimate(
        self,
        image: npt.NDArray[np.uint8],
        camera: CameraModel,
        outside: npt.NDArray[np.bool_] | None,
        values: dict[str, Any],
    ) -> DepthFrame:
        """Depth from the engine that serves; if that fails on the GPU, from the next best one."""
        serving = self._serving
        assert serving is not None
        limits, aspect = (values["min_depth"], values["max_depth"]), values["aspect"]
        size = window_size((camera.height, camera.width), serving.input_size, aspect)
        estimator, frame = serving.current(size), None
        estimator.set_range(*limits)
        estimator.set_aspect(aspect)
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
            substitute.set_aspect(aspect)
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
        fallback = self._values["fallback_hfov_deg"]
        calibration: Calibration | None = None
        try:
            calibration = self._calibrations.find(
                messages.stamp_ns(message.header), width, height, 0.0 if fallback else INFO_WAIT_S
            )
        except UncalibratedError:
            if not fallback:
                raise
        if calibration is None:
            if fallback:
                self._scale_source = f"fallback_hfov_deg {fallback:g}"
                return CameraModel.from_hfov(width, height, fallback), None
            topic = self.resolve_topic_name("camera_info")
            raise ValueError(
                f"no camera_info on {topic}; remap camera_info to the camera's topic, or set the"
                " parameter fallback_hfov_deg"
            )
        if calibration.image_size != (width, height):
            size = "x".join(map(str, calibration.image_size))
            raise ValueError(
                f"camera_info is for {size} images, the image is {width}x{height};"
                " make the camera driver publish a calibration of this size"
            )
        self._scale_source = "camera_info"
        rectify = self._values["rectify"]
        if rectify == "off" or (
            rectify == "auto" and already_rectified(self.resolve_topic_name(self._image_topic()))
        ):
            return calibration.rectified(), None
        if self._rectifier is None or self._rectifier[0] != calibration:
            self._rectifier = (calibration, Rectifier(calibration))
        rectifier = self._rectifier[1]
        return rectifier.camera, rectifier

    # Errors and diagnostics

    def _report(self, text: str) -> None:
        """Logs an error, but not again for some seconds, and another one not within a second."""
        now = time.monotonic()
        with self._error_lock:
            self._error = text
            logged, at = self._logged
            if now - at < (REPEAT_ERROR_S if text == logged else OTHER_ERROR_S):
                return
            self._logged = (text, now)
        self.get_logger().error(text)

    def _clear_error(self) -> None:
        with self._error_lock:
            self._error = ""

    def _on_second(self) -> None:
        self._watch_for_latched_info()
        self._diagnostics.publish(self._diagnosis())

    def _namesakes(self) -> int:
        own = (self.get_name(), self.get_namespace())
        names: list[tuple[str, str]] = self.get_node_names_and_namespaces()
        return max(names.count(own) - 1, 0)

    def _diagnosis(self) -> DiagnosticArray:
        now, statistics, serving = time.monotonic(), self._statistics, self._serving
        summary = statistics.summary(now)
        topic = self.resolve_topic_name(self._image_topic())
        period = statistics.arrival_period()
        self._period = period or 0.0
        with self._error_lock:
            error = self._error
        latency = summary.get("latency_ms_p50")
        level, text = assess(
            Observation(
                name=self.get_fully_qualified_name(),
                image_topic=topic,
                configured=self._configured,
                active=self._active,
                shut_down=self._shut_down,
                wanted=self._image_input is not None,
                namesakes=self._namesakes(),
                image_publishers=self.count_publishers(topic),
                error=error,
                warning=serving.warning if serving is not None else "",
                missing=self._missing,
                silence_s=statistics.seconds_since_arrival(now),
                period_s=period,
                latency_s=None if latency is None else latency * 1e-3,
                invalid_share=summary.get("invalid_share"),
                sim_time=bool(self.get_parameter("use_sim_time").value),
            )
        )
        entries = {key: f"{value:.4g}" for key, value in summary.items()}
        if self._scale_source:
            entries["scale_source"] = self._scale_source
        entries["fast_dds_profile"] = _fast_dds_profile()
        if serving is not None:
            entries |= serving.describe()
        name = self.get_fully_qualified_name().removeprefix("/")
        status = DiagnosticStatus(name=f"{name}: depth", message=text, hardware_id=topic)
        status.level = _LEVELS[level]
        status.values = [KeyValue(key=key, value=value) for key, value in entries.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        return array


_LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR,
}


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def _fast_dds_profile() -> str:
    """The profile file that this process uses; see `config/fastdds.xml`."""
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    return next(filter(None, map(os.environ.get, names)), "none")


EXAMPLES = """examples:
  depth_node --ros-args -r image_raw:=/camera/image_raw -r camera_info:=/camera/camera_info
  depth_node --ros-args --params-file config/depth.yaml
  depth_node --ros-args -p engine:=onnx -p cloud.stride:=2
  depth_node --camera front --camera rear
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
    parser.add_argument(
        "--camera",
        action="append",
        metavar="NAMESPACE",
        help="a camera, served by a node in this namespace; repeat it for several cameras with one"
        " engine",
    )
    try:
        args = parser.parse_args(remove_ros_args(["depth_node", *arguments])[1:])
    except RuntimeError as error:
        return _refuse(error)
    sys.setswitchinterval(SWITCH_S)
    leave = threading.Event()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    # The main thread only waits, so that a long frame, or a model that is being loaded, does not
    # keep the process from ending. It waits for a byte, which whatever thread the system gives the
    # signal to writes; a lock's wait would only end if that is the main thread.
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    served = ThreadPoolExecutor(1, "ros").submit(_serve, arguments, args.camera or [""], leave)
    served.add_done_callback(lambda _: os.write(tell, b"\0"))
    os.read(told, 1)
    # One is enough, and an interpreter that ends would let another kill it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    leave.set()
    try:
        return served.result(LEAVE_S)
    except TimeoutError:
        print("depth_node: ends without finishing its last frame or model", file=sys.stderr)
        sys.stderr.flush()
        # Whoever is still at work would crash if the interpreter were taken from under it.
        os._exit(0)


def _serve(arguments: list[str], namespaces: list[str], leave: threading.Event) -> int:
    """Runs a node for each namespace until `leave` is set; returns the exit status."""
    nodes: list[DepthNode] = []
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        worker = DepthWorker()
        executor = SingleThreadedExecutor()
        for namespace in namespaces:
            # The frames of several cameras must have names of their own.
            camera_name = namespace.rpartition("/")[2]
            nodes.append(DepthNode(worker, camera_name, namespace=namespace))
            executor.add_node(nodes[-1])
        _refuse_namesakes(nodes)
        for node in nodes:
            autostart = node.get_parameter("autostart").value
            if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                node.trigger_activate()
        while not leave.is_set():
            try:
                # Not until a Future is done: Jazzy's executor would add a callback to it each time.
                # Nor with a timeout, which costs a timer: those of the nodes end the wait as well.
                executor.spin_once()
            except Exception as error:  # no message or request may end the node
                nodes[0].get_logger().error(_unexpected(error), throttle_duration_sec=1.0)
    except (ValueError, RuntimeError, ParameterException, NameValidationException) as error:
        return _refuse(error)
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _refuse(error: Exception) -> int:
    print(f"depth_node: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


def _refuse_namesakes(nodes: list[DepthNode]) -> None:
    names = [node.get_fully_qualified_name() for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"several cameras would be {name}; give each --camera another namespace, and do not"
                " remap __ns"
            )


if __name__ == "__main__":
    raise SystemExit(main())
