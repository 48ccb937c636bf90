"""What an image topic is, going by its name and its first message."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mono_depth_ros.camera_info import already_rectified

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DEPTH_ENCODINGS = ("16UC1", "32FC1")

_GREY_ENCODINGS = ("mono8", "mono16", "8UC1")
# These are 16UC1 or 32FC1 too.
_NO_DEPTH = re.compile("confidence|disparity")
_REGISTERED = re.compile("aligned|registered")

REGISTER = (
    "record depth that is registered to the colour camera (RealSense: align_depth.enable:=true,"
    " Orbbec: depth_registration:=true, OAK: stereo.i_align_depth: true)"
)


@dataclass(frozen=True)
class ImageTopic:
    """An image topic, as its first message is.

    Attributes:
        name: of the topic.
        encoding: of an Image; of a CompressedImage what its format starts with, such as `rgb8`,
            `16UC1` or `jpeg`.
        frame_id: the camera it is seen from.
        is_compressed: whether the messages are CompressedImages.
    """

    name: str
    encoding: str
    frame_id: str
    is_compressed: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.encoding})"

    @property
    def base(self) -> str:
        """The topic of the image itself, whichever transport this one is."""
        return re.sub("/(compressedDepth|compressed)$", "", self.name)

    @property
    def is_depth(self) -> bool:
        """Whether it can be depth."""
        return self.encoding in DEPTH_ENCODINGS and not _NO_DEPTH.search(self.base)

    @property
    def is_colour(self) -> bool:
        """Whether it can be a colour camera's image."""
        return self.encoding not in (*DEPTH_ENCODINGS, *_GREY_ENCODINGS)

    @property
    def is_rectified(self) -> bool:
        """Whether its name says that it is rectified, as image_proc and drivers name such topics.

        Their camera_info still describes the lens, and P is the camera of these images.
        """
        return already_rectified(self.base)

    @property
    def says_registered(self) -> bool:
        """Whether its name says that it is depth as another camera sees it."""
        return bool(_REGISTERED.search(self.base))

    @property
    def namespace(self) -> str:
        """What its camera's topics start with, such as `/camera`; empty for the root."""
        return self.base.rpartition("/")[0]

    @property
    def info(self) -> str:
        """The topic of its CameraInfo: beside the image."""
        return f"{self.namespace}/camera_info"


def is_registered(image: ImageTopic, depth: ImageTopic) -> bool:
    """Whether depth is seen from the colour camera, by its frame or its topic's name."""
    return image.frame_id == depth.frame_id or depth.says_registered
