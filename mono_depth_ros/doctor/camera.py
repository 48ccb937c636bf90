"""What the camera sends: images, calibration, frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import UncalibratedError, calibration_from_info
from mono_depth_ros.doctor.finding import Claim, Code
from mono_depth_ros.doctor.graph import kind, mismatch
from mono_depth_ros.doctor.launch_command import launch_remedy, similar
from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    DepthNode,
    Observation,
    Stream,
)
from mono_depth_ros.doctor.transport import FAST_DDS, remedy_for_loss
from mono_depth_ros.health import Level
from mono_depth_ros.mounting import quaternion_matrix

# Images that come, of those that camera_info announces, below which some are lost, and the number
# of camera_info that such a share takes to mean something.
_LOST_SHARE, _COUNTED = 0.8, 8
# Cosine of an angle within which an axis points up.
_UP = 0.7
_RECALIBRATE = "calibrate the camera anew, and load the result with the driver's camera_info_url"
_OPTICAL_ENDINGS = ("optical_frame", "optical", "optical_link")


def images(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether images come, all of them, and can be read."""
    image, info = node.image, node.info
    if image is None or not _reachable(image):
        return
    heard, announced = len(image.stamps_ns), len(info.stamps_ns) if info else 0
    name, remedy = image.topic.name, remedy_for_loss(node, seen)
    if not heard:
        camera = image.topic.publishers[0].node
        what = f"{camera} publishes {name}, but no image came"
        fix = f"see the log of {camera}; ros2 topic hz {name}"
        if announced >= _COUNTED and seen.rmw.startswith(FAST_DDS):
            what, fix = f"{what}, while {announced} camera_info did", remedy
        yield Code.IMAGE_SILENT, Level.ERROR, what, fix
        return
    # Only a camera_info that is sent with each image counts the images.
    with_image = info is not None and not set(image.stamps_ns).isdisjoint(info.stamps_ns)
    if with_image and announced >= _COUNTED and heard < _LOST_SHARE * announced - 1:
        yield (
            Code.IMAGES_LOST,
            Level.ERROR,
            f"{heard} images came on {name} for {announced} camera_info: the rest is lost on the"
            " way",
            remedy,
        )
    if node.picture is not None and node.picture.problem:
        yield (
            Code.IMAGE_UNREADABLE,
            Level.ERROR,
            f"{name}: {node.picture.problem}",
            f"set the encoding of {image.topic.publishers[0].node} to rgb8 or bgr8"
            " (usb_cam: pixel_format, v4l2_camera: output_encoding)",
        )


def _reachable(stream: Stream) -> bool:
    """Whether a publisher of the right type can be heard."""
    subscriptions = stream.topic.subscriptions
    return any(
        p.kind == stream.kind and not mismatch(p, subscriptions) for p in stream.topic.publishers
    )


def calibration(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether there is a calibration, and it can be one of this camera."""
    if node.info is None:
        return
    topic = node.info.topic
    has_fallback = float(node.parameters.get("fallback_hfov_deg", 0.0)) > 0
    level = Level.WARN if has_fallback else Level.ERROR
    guess = f"ros2 param set {node.name} fallback_hfov_deg 60.0"
    if not topic.publishers:
        infos = similar(topic.name, seen.camera_topics, CAMERA_INFO)
        what = f"nobody publishes {topic.name}"
        if infos:
            what += f"; camera_info is on {', '.join(infos[:4])}"
            fix = launch_remedy(seen, node)
        else:
            fix = (
                "calibrate the camera (ros2 run camera_calibration cameracalibrator), or give a"
                f" guess of its field of view: {guess}"
            )
        yield Code.INFO_NO_PUBLISHER, level, what, fix
        return
    yield from kind(node, node.info, seen)
    if node.calibration is None:
        if _reachable(node.info):
            camera = topic.publishers[0].node
            yield (
                Code.INFO_SILENT,
                level,
                f"{camera} publishes {topic.name}, but none came",
                f"see the log of {camera}; ros2 topic echo {topic.name}",
            )
        return
    try:
        found = calibration_from_info(node.calibration)
    except UncalibratedError:
        yield (
            Code.INFO_ZERO,
            level,
            f"{topic.name} has K[0] = 0: the camera is not calibrated",
            "ros2 run camera_calibration cameracalibrator, and load its result with the driver's"
            f" camera_info_url; until then give a guess of the field of view: {guess}",
        )
    except ValueError as error:
        yield Code.INFO_BROKEN, Level.ERROR, str(error), _RECALIBRATE
    else:
        yield from _fit(node, found)


def _fit(node: DepthNode, calibration: Calibration) -> Iterator[Claim]:
    assert node.info is not None
    name, picture = node.info.topic.name, node.picture
    width, height = calibration.image_size
    if picture is not None and picture.width and (picture.width, picture.height) != (width, height):
        yield (
            Code.INFO_WRONG_SIZE,
            Level.ERROR,
            f"{name} is for {width}x{height} images, and they are {picture.width}x{picture.height}",
            f"run the camera at {width}x{height}, or load a calibration of"
            f" {picture.width}x{picture.height} with the driver's camera_info_url",
        )
        return
    try:
        raw = calibration.raw()
        if node.parameters.get("rectify") not in (False, "off"):
            calibration.rectify_maps()
    except ValueError as error:
        yield Code.INFO_BROKEN, Level.ERROR, f"{name}: {error}", _RECALIBRATE
        return
    hfov = math.degrees(2 * math.atan(width / 2 / raw.fx))
    doubts = []
    if not (0.25 < raw.cx / width < 0.75 and 0.25 < raw.cy / height < 0.75):
        doubts.append(f"the principal point ({raw.cx:.0f}, {raw.cy:.0f}) is far from the middle")
    if not 0.67 < raw.fx / raw.fy < 1.5:
        doubts.append(f"fx {raw.fx:.0f} and fy {raw.fy:.0f} differ much")
    if not 10 < hfov < 170:
        doubts.append(f"the field of view is {hfov:.0f} degrees")
    if doubts:
        what = f"{name} ({width}x{height}): {'; '.join(doubts)}; was it made at another resolution?"
        yield Code.INFO_IMPLAUSIBLE, Level.WARN, what, _RECALIBRATE


def synchrony(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether images and calibrations have the same stamps."""
    if node.image is None or node.info is None:
        return
    images = np.unique(node.image.stamps_ns).astype(np.int64)
    infos = np.unique(node.info.stamps_ns).astype(np.int64)
    # A calibration that is sent rarely, or once, is for all images.
    if images.size < 3 or infos.size < max(3, images.size // 2):
        return
    period = float(np.median(np.diff(images)))
    right = np.clip(np.searchsorted(infos, images), 1, infos.size - 1)
    distance = np.minimum(np.abs(images - infos[right - 1]), np.abs(infos[right] - images))
    # At the ends, the partner may have come before or after we listened.
    off = float(np.median(distance))
    if off > period / 2:
        yield (
            Code.INFO_UNSYNCHRONISED,
            Level.WARN,
            f"stamps of {node.info.topic.name} are {off * 1e-6:.0f} ms from those of the images,"
            f" which come every {period * 1e-6:.0f} ms",
            "make the driver stamp both alike; check that both topics are of one camera",
        )


def frames(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether the images are in an optical frame."""
    image, info = node.image, node.info
    if image is None or not image.stamps_ns:
        return
    name, camera = image.frame_id, image.topic.publishers
    driver = camera[0].node if camera else "the camera's driver"
    if not name:
        yield (
            Code.FRAME_EMPTY,
            Level.ERROR,
            f"images on {image.topic.name} have no frame_id, so tf, RViz and costmaps drop the"
            " depth",
            f"set the frame_id parameter of {driver} to camera_optical_frame"
            " (v4l2_camera: camera_frame_id)",
        )
        return
    if info is not None and node.calibration is not None and info.frame_id != name:
        yield (
            Code.FRAMES_DIFFER,
            Level.WARN,
            f"images are in frame {name}, camera_info in frame '{info.frame_id}'",
            f"set both to the optical frame in {driver}; check that both topics are of one camera",
        )
    optical = _is_optical(name, seen.transforms)
    named = name.endswith(_OPTICAL_ENDINGS)
    if optical is False:
        what = f"frame {name} has its z axis up, as a body has, not forward as an optical frame"
    elif optical is None and not named:
        what = f"frame {name} does not look like an optical frame (z forward, x right, y down)"
    else:
        return
    frame = name if named else f"{name.removesuffix('_frame').removesuffix('_link')}_optical_frame"
    parent = seen.transforms[name][0] if named and name in seen.transforms else name
    yield (
        Code.FRAME_NOT_OPTICAL,
        Level.WARN if optical is None else Level.ERROR,
        f"{what}; points come out turned",
        f"ros2 run tf2_ros static_transform_publisher --roll -1.5708 --yaw -1.5708 --frame-id"
        f" {parent} --child-frame-id {frame}, and set the frame_id of {driver} to {frame}",
    )


def _is_optical(
    frame: str, transforms: Mapping[str, tuple[str, tuple[float, float, float, float]]]
) -> bool | None:
    """Whether a frame is turned as REP 103 wants it of a camera; None where tf does not say.

    The root of the tree is taken to be a body, z up. A frame is optical unless its own z is up.
    """
    if frame not in transforms:
        return None
    rotation: npt.NDArray[np.float64] = np.eye(3)
    for _ in range(len(transforms)):  # a tree that is broken may have a loop
        if frame not in transforms:
            break
        frame, quaternion = transforms[frame]
        rotation = quaternion_matrix(*np.array(quaternion) / np.linalg.norm(quaternion)) @ rotation
    return bool(rotation[2, 2] < _UP)
