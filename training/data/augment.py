"""Random views of an RGB-D pair that keep its metric truth.

A crop that is enlarged looks like a camera with a longer focal length. The network is asked for
depth "as if seen at the training focal length", so every crop divides depth by the enlargement:
Z_net = Z * f_train / f_crop. f is the geometric mean of fx and fy, in network-input pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, NonNegativeFloat
from pydantic.dataclasses import dataclass

from training.data.pair import Pair

# Thickest frame, as a share of the image's side.
MAX_FRAME = 0.025


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """How often, and how far, each change is made; all off by default.

    Attributes:
        flip: probability of a mirror image.
        channel_permutation: probability of colour channels in another order (Alhashim & Wonka,
            arXiv 1812.11941, section 3.3).
        colour: probability of a new exposure, contrast, gamma, white balance and saturation.
        degradation: probability of a fault that cameras on robots have: motion blur, defocus,
            darkness with noise, blown highlights, coarse JPEG.
        rotation: probability of a roll of up to `rotation_deg` degrees.
        min_crop: smallest crop as a share of the image; 1 leaves images whole.
        cut_flip: probability that the image is cut at a random row and its halves swapped, so that
            a pixel's row says less of its depth (CutFlip of URCDC-Depth, arXiv 2302.08149).
        frame: probability of a thin white or black frame, which some cameras leave.
    """

    flip: NonNegativeFloat = 0.0
    channel_permutation: NonNegativeFloat = 0.0
    colour: NonNegativeFloat = 0.0
    degradation: NonNegativeFloat = 0.0
    rotation: NonNegativeFloat = 0.0
    rotation_deg: NonNegativeFloat = 4.0
    min_crop: float = 1.0
    cut_flip: NonNegativeFloat = 0.0
    frame: NonNegativeFloat = 0.0


def _crop_window(
    rng: np.random.Generator, height: int, width: int, aspect: float, min_crop: float
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop whose aspect is near `aspect` (width / height)."""
    aspect *= math.exp(rng.uniform(-0.12, 0.12))
    # Half of the crops are nearly whole frames, which is what the network will be given.
    scale = rng.uniform(max(0.9, min_crop), 1) if rng.random() < 0.5 else rng.uniform(min_crop, 1)
    crop_h = min(height, width / aspect) * scale
    crop_w = min(crop_h * aspect, width)
    h, w = max(8, round(crop_h)), max(8, round(crop_w))
    return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w


def _rotate(pair: Pair, angle_deg: float) -> Pair:
    height, width = pair.depth.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    image = cv2.warpAffine(pair.image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    depth = cv2.warpAffine(
        pair.depth, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(math.nan,)
    )
    return replace(pair, image=np.asarray(image, np.uint8), depth=depth.astype(np.float32))


def jitter_colour(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random exposure, contrast, gamma, white balance and saturation of HxWx3 uint8 RGB."""
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    curves = levels[:, None] ** rng.uniform(0.75, 1.33) * gain.astype(np.float32)
    curves = (curves - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.08, 0.08)
    table = np.clip(curves * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    out = np.asarray(cv2.LUT(image, table), np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4)
    return np.asarray(cv2.addWeighted(out, saturation, grey, 1 - saturation, 0), np.uint8)


def degrade(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One fault of cameras on robots, drawn at random, in HxWx3 uint8 RGB."""
    kind = int(rng.integers(5))
    width = image.shape[1]
    if kind == 0:
        # Up to 3 % of the width: a camera that turns 60 degrees a second, exposed for a 30th.
        reach = max(3, round(width * rng.uniform(0.006, 0.03)))
        kernel = np.zeros((reach, reach), np.float32)
        centre, angle = (reach - 1) / 2, rng.uniform(0, math.pi)
        step = np.array([math.cos(angle), math.sin(angle)]) * centre
        start, end = (np.rint(centre + sign * step).astype(int).tolist() for sign in (-1, 1))
        cv2.line(kernel, start, end, 1.0)
        out = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif kind == 1:
        out = cv2.GaussianBlur(image, (0, 0), max(0.6, width * rng.uniform(0.0015, 0.006)))
    elif kind == 2:
        dark = image * np.float32(rng.uniform(0.15, 0.6))
        dark += rng.normal(0, rng.uniform(2, 9), image.shape).astype(np.float32)
        out = np.clip(dark, 0, 255)
    elif kind == 3:
        out = np.clip(image * np.float32(rng.uniform(1.3, 2.2)), 0, 255)
    else:
        option = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60)))
        coded = cv2.imencode(".jpg", image, option)[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(out, np.uint8)


def cut_flip(
    image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Swaps what is above and below a random row of both (image rows per depth row: whole)."""
    rows = depth.shape[0]
    cut = int(rng.integers(rows // 5, rows - rows // 5))
    stride = image.shape[0] // rows
    return np.roll(image, -cut * stride, axis=0), np.roll(depth, -cut, axis=0)


def draw_frame(
    image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Paints a thin white or black frame into HxWx3 `image`, as some cameras and converters leave.

    The network must not read it as part of the room; the same share of `depth` becomes NaN.
    """
    colour = 255 if rng.random() < 0.7 else 0
    shares = rng.uniform(0, MAX_FRAME, 4)
    for array, value in ((image, colour), (depth, math.nan)):
        height, width = array.shape[:2]
        top, bottom = (math.ceil(share * height) for share in shares[:2])
        left, right = (math.ceil(share * width) for share in shares[2:])
        array[:top] = array[height - bottom :] = value
        array[:, :left] = array[:, width - right :] = value


def resize_pair(
    pair: Pair, size: tuple[int, int], focal: float, stride: int = 2
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Image at `size` (height, width), and depth at `size` / `stride` scaled to `focal`.

    Args:
        focal: geometric-mean focal length in pixels at `size` that the network is trained for.

    Returns:
        hxwx3 uint8 RGB, and (h/stride)x(w/stride) float32 metres with NaN.
    """
    height, width = size
    source_h, source_w = pair.depth.shape
    image = cv2.resize(pair.image, (width, height), interpolation=cv2.INTER_AREA)
    # Never interpolate depth: a mixture of foreground and background is a point in mid-air.
    depth = cv2.resize(
        pair.depth, (width // stride, height // stride), interpolation=cv2.INTER_NEAREST_EXACT
    )
    seen = math.sqrt(pair.fx * width / source_w * pair.fy * height / source_h)
    return np.asarray(image, np.uint8), depth.astype(np.float32) * np.float32(focal / seen)


def augment(
    pair: Pair,
    rng: np.random.Generator,
    size: tuple[int, int],
    focal: float,
    settings: Augmentation,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A random view of `pair` as `settings` say; otherwise as `resize_pair`."""
    if rng.random() < settings.rotation:
        pair = _rotate(pair, rng.uniform(-settings.rotation_deg, settings.rotation_deg))
    if settings.min_crop < 1:
        height, width = pair.depth.shape
        aspect = size[1] / size[0]
        top, left, h, w = _crop_window(rng, height, width, aspect, settings.min_crop)
        inside = (slice(top, top + h), slice(left, left + w))
        pair = replace(pair, image=pair.image[inside], depth=pair.depth[inside])
    image, depth = resize_pair(pair, size, focal)
    if rng.random() < settings.flip:
        image, depth = image[:, ::-1], depth[:, ::-1]
    if rng.random() < settings.cut_flip:
        image, depth = cut_flip(image, depth, rng)
    image, depth = np.ascontiguousarray(image), np.ascontiguousarray(depth)
    if rng.random() < settings.colour:
        image = jitter_colour(image, rng)
    if rng.random() < settings.channel_permutation:
        image = np.ascontiguousarray(image[..., rng.permutation(3)])
    if rng.random() < settings.degradation:
        image = degrade(image, rng)
    if rng.random() < settings.frame:
        image = image.copy()
        draw_frame(image, depth, rng)
    return image, depth
