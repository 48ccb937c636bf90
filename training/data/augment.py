"""Random views of an RGB-D pair that keep its metric truth.

A crop that is enlarged looks like a camera with a longer focal length. The network is asked for
depth "as if seen at the training focal length", so every crop divides depth by the enlargement:
Z_net = Z * f_train / f_crop. f is the geometric mean of fx and fy, in network-input pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from training.data.pair import Pair

MAX_ROTATION_DEG = 4.0
MIN_CROP = 0.6
# Thickest frame, as a share of the image's side.
MAX_FRAME = 0.025


def _crop_window(
    rng: np.random.Generator, height: int, width: int, aspect: float
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop whose aspect is near `aspect` (width / height)."""
    aspect *= math.exp(rng.uniform(-0.12, 0.12))
    scale = rng.uniform(0.9, 1.0) if rng.random() < 0.5 else rng.uniform(MIN_CROP, 1.0)
    crop_h = min(height, width / aspect) * scale
    crop_w = min(crop_h * aspect, width)
    h, w = max(8, round(crop_h)), max(8, round(crop_w))
    return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w


def _rotate(pair: Pair, rng: np.random.Generator) -> Pair:
    height, width = pair.depth.shape
    angle = rng.uniform(-MAX_ROTATION_DEG, MAX_ROTATION_DEG)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    image = cv2.warpAffine(pair.image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    depth = cv2.warpAffine(
        pair.depth, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(math.nan,)
    )
    return Pair(np.asarray(image, np.uint8), depth.astype(np.float32), pair.fx, pair.fy, pair.name)


def jitter_colour(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random exposure, contrast, gamma, white balance, saturation, channel order, blur, noise."""
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    curves = levels[:, None] ** rng.uniform(0.75, 1.33) * gain.astype(np.float32)
    curves = (curves - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.08, 0.08)
    table = np.clip(curves * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    out = np.asarray(cv2.LUT(image, table), np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4)
    out = np.asarray(cv2.addWeighted(out, saturation, grey, 1 - saturation, 0), np.uint8)
    if rng.random() < 0.15:
        out = out[..., rng.permutation(3)]
    if rng.random() < 0.15:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.2)), np.uint8)
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(2, 8), out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out)


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
    pair: Pair, rng: np.random.Generator, size: tuple[int, int], focal: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A random rotation, crop, flip, colour and frame of `pair`; otherwise as `resize_pair`."""
    if rng.random() < 0.3:
        pair = _rotate(pair, rng)
    height, width = pair.depth.shape
    top, left, h, w = _crop_window(rng, height, width, size[1] / size[0])
    inside = (slice(top, top + h), slice(left, left + w))
    crop = Pair(pair.image[inside], pair.depth[inside], pair.fx, pair.fy, pair.name)
    image, depth = resize_pair(crop, size, focal)
    if rng.random() < 0.5:
        image, depth = image[:, ::-1], depth[:, ::-1]
    image, depth = jitter_colour(np.ascontiguousarray(image), rng), np.ascontiguousarray(depth)
    if rng.random() < 0.3:
        draw_frame(image, depth, rng)
    return image, depth
