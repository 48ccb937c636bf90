"""Which topics of a bag are a colour camera's images and the depth registered to them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from mono_depth_ros.image_topic import DEPTH_ENCODINGS, REGISTER, ImageTopic, is_registered

# What the transports of one image append to its topic, the best first.
_TRANSPORTS = ("", "/compressedDepth", "/compressed")
_CHOOSE = "choose with --image-topic and --depth-topic of python -m training.import_bag"


class TopicError(ValueError):
    """A bag whose topics do not give one colour and one depth camera; one line with the remedy."""


def _rank(image: ImageTopic, depth: ImageTopic) -> tuple[bool, ...]:
    """Pairs that are more likely what is wanted compare greater."""
    namespace = image.base.split("/")[:-1]
    return (
        is_registered(image, depth),
        image.frame_id == depth.frame_id,
        depth.says_registered,
        "depth" not in image.base,
        "rgb" in namespace,
        "color" in namespace,
        # Registered depth (ZED, OpenNI) is that of the rectified image, aligned depth (RealSense)
        # that of the raw one.
        image.is_rectified == ("registered" in depth.base),
    )


def _one_transport_each(topics: Iterable[ImageTopic]) -> list[ImageTopic]:
    best: dict[str, ImageTopic] = {}
    for topic in sorted(topics, key=lambda t: _TRANSPORTS.index(t.name.removeprefix(t.base))):
        best.setdefault(topic.base, topic)
    return list(best.values())


def _candidates(topics: list[ImageTopic], name: str | None, depth: bool) -> list[ImageTopic]:
    listing = ", ".join(map(str, topics)) or "none"
    what = "depth (16UC1 or 32FC1)" if depth else "colour"
    if name is not None:
        found = [topic for topic in topics if topic.name == name]
        if not found:
            raise TopicError(f"no images on {name}; images it has: {listing}")
        if (found[0].encoding in DEPTH_ENCODINGS) != depth:
            raise TopicError(f"{found[0]} is not {what}; images it has: {listing}")
        return found
    found = [topic for topic in topics if (topic.is_depth if depth else topic.is_colour)]
    if not found:
        remedy = REGISTER if depth else _CHOOSE
        raise TopicError(f"no {what} images; images it has: {listing}; {remedy}")
    return _one_transport_each(found)


def choose(
    topics: Iterable[ImageTopic], image_topic: str | None = None, depth_topic: str | None = None
) -> tuple[ImageTopic, ImageTopic]:
    """The colour topic and the depth topic.

    Of several pairs that are registered, the one that common drivers name as the main one is taken
    (RealSense, ZED, OAK, Kinect, Orbbec, OpenNI).

    Args:
        topics: those of the bag that have messages.
        image_topic, depth_topic: the caller's choice; None searches.

    Raises:
        TopicError: none fits, several do, or depth is seen from another camera than the image.
    """
    topics = list(topics)
    images = _candidates(topics, image_topic, depth=False)
    depths = _candidates(topics, depth_topic, depth=True)
    pairs = sorted(product(images, depths), key=lambda pair: _rank(*pair), reverse=True)
    image, depth = pairs[0]
    if not is_registered(image, depth):
        raise TopicError(
            f"{depth.name} is depth in the frame '{depth.frame_id}', {image.name} is seen from"
            f" '{image.frame_id}'; {REGISTER}"
        )
    ties = [pair for pair in pairs if _rank(*pair) == _rank(image, depth)]
    if len(ties) > 1:
        listing = ", ".join(f"{image.name} with {depth.name}" for image, depth in ties)
        raise TopicError(f"several cameras: {listing}; {_CHOOSE}")
    return image, depth
