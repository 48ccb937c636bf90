"""How far each pixel's depth can be trusted: the probability that it is within 25 % of the truth.

A logistic regression on a coarse grid, from the depth, the image and the camera; no second pass of
the network. docs/confidence.md tells how it was fitted and how good it is.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel

#: Rows and columns of the grid, whatever the image's size: windows are shares of the view, as they
#: are for the network, whose input has one size too.
GRID = (120, 160)
FEATURES = (
    "constant",
    "relief_narrow",
    "relief_wide",
    "near",
    "side",
    "height",
    "narrow_view",
    "dark",
    "bright",
    "blur",
    "noise",
)
#: Of FEATURES, in order: log-odds. Fitted to `models/compact.onnx`; docs/confidence.md has the
#: command.
COEFFICIENTS = (
    1.718,
    -0.542,
    -0.895,
    -1.590,
    -0.225,
    0.236,
    -1.183,
    -0.408,
    -0.245,
    -0.454,
    -0.080,
)

# Windows of the reliefs in grid pixels, 6 % and 13 % of the width.
_NARROW, _WIDE = np.ones((9, 9), np.uint8), np.ones((21, 21), np.uint8)
# What depth is clipped to, and what unknown depth counts as where a neighbour is judged: metres.
_NEAREST, _FURTHEST, _TYPICAL = 0.1, 10.0, 2.5
_NEAR = 2.0
_DARK, _BRIGHT = 64.0, 208.0
_SURROUNDINGS = (9, 9)
# Samples across and along the lines whose softness is measured, and the wider of its two steps.
_SAMPLES, _LINES, _STEP = (240, 320), (60, 80), 8
# Softness of images that are in focus, held still, and well lit: 1.1 to 1.4 in NYU-Depth-V2.
_SOFT, _HARD = 1.4, 0.9
# Focal length over image size (geometric mean of both axes) of NYU-Depth-V2's camera, for which
# the network that ships was trained.
_TRAINING_FOCAL = 0.9367


def softness(image: npt.NDArray[np.uint8]) -> float:
    """How slowly an image changes over its pixels: of blur it is high, of noise low.

    The log ratio of the mean differences 1/40 and 1/320 of the width apart (of the height: 1/30 and
    1/240), along whichever of rows and columns it is higher: a camera that turns blurs one of them.
    0 for white noise, at most log 8 = 2.08.

    Args:
        image: HxWx3 uint8.
    """
    across = cv2.resize(image, (_SAMPLES[1], _LINES[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    along = cv2.resize(image, (_LINES[1], _SAMPLES[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    green = cv2.extractChannel(across, 1), cv2.extractChannel(along, 1)
    ratios = []
    for (wide_a, wide_b), (fine_a, fine_b) in (
        ((green[0][:, _STEP:], green[0][:, :-_STEP]), (green[0][:, 1:], green[0][:, :-1])),
        ((green[1][_STEP:], green[1][:-_STEP]), (green[1][1:], green[1][:-1])),
    ):
        wide = cv2.norm(wide_a, wide_b, cv2.NORM_L1) / wide_a.size
        fine = cv2.norm(fine_a, fine_b, cv2.NORM_L1) / fine_a.size
        # A tenth of a grey level, so that an image of one colour has a ratio, too.
        ratios.append((wide + 0.1) / (fine + 0.1))
    return math.log(max(ratios))


class ConfidenceFeatures:
    """What the confidence is computed from.

    All are 0 in the middle of a good image of a flat wall more than 2 m before the camera of the
    training set; `constant` is 1.

    relief_narrow, relief_wide: root of the log ratio of the largest to the smallest depth around a
        pixel: nearness of depth edges, and slope. near: log(2 m / Z), where positive.
        side: square of the column, -1 to 1; height: row, -1 (top) to 1.
        narrow_view: log ratio of focal lengths, where a camera's is longer than in training.
        bright: how far the surroundings' mean grey is above 208, 0 to 1.
        dark: of the whole image, how far its mean grey is below 64, 0 to 1: dark things are no
        harder than others, a dark room is.
        blur, noise: of the whole image, how far its `softness` is above 1.4 or below 0.9.

    Args:
        camera: of the depth.
    """

    def __init__(self, camera: CameraModel) -> None:
        self.camera = camera
        rows, columns = GRID
        self._maps = np.zeros((len(FEATURES), *GRID), np.float32)
        self._map = dict(zip(FEATURES, self._maps, strict=True))
        y = (2 * np.arange(rows, dtype=np.float32)[:, None] + 1) / rows - 1
        x = (2 * np.arange(columns, dtype=np.float32) + 1) / columns - 1
        focal = camera.focal / math.sqrt(camera.width * camera.height)
        self._map["constant"][:] = 1
        self._map["side"][:] = x**2
        self._map["height"][:] = y
        self._map["narrow_view"][:] = max(0.0, math.log(focal / _TRAINING_FOCAL))
        self._log = np.empty(GRID, np.float32)
        self._low, self._high = np.empty(GRID, np.float32), np.empty(GRID, np.float32)
        self._pixels = np.empty((*GRID, 3), np.uint8)
        self._grey, self._mean = np.empty(GRID, np.uint8), np.empty(GRID, np.uint8)

    def __call__(
        self, depth: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        """The features of a frame.

        Args:
            depth: HxW float32 metres; NaN unknown, -Inf too near, +Inf too far.
            image: HxWx3 uint8 RGB, the same pixels.

        Returns:
            len(FEATURES) x GRID float32, overwritten by the next call.

        Raises:
            ValueError: depth or image has another size than the camera.
        """
        size = (self.camera.height, self.camera.width)
        if depth.shape != size or image.shape != (*size, 3):
            raise ValueError(
                f"depth {depth.shape} and image {image.shape} are not those of a"
                f" {size[1]}x{size[0]} camera"
            )
        rows, columns = GRID
        log, low, high, maps = self._log, self._low, self._high, self._map
        cv2.resize(depth, (columns, rows), dst=log, interpolation=cv2.INTER_NEAREST_EXACT)
        np.clip(log, _NEAREST, _FURTHEST, out=log)
        np.log(log, out=log)
        cv2.patchNaNs(log, math.log(_TYPICAL))
        for name, window in (("relief_narrow", _NARROW), ("relief_wide", _WIDE)):
            cv2.dilate(log, window, dst=high)
            cv2.erode(log, window, dst=low)
            np.subtract(high, low, out=high)
            np.sqrt(high, out=maps[name])
        np.subtract(np.float32(math.log(_NEAR)), log, out=maps["near"])
        # Every sixteenth pixel of the image is enough for a mean, and averaging all of them would
        # take as long as all the rest.
        cv2.resize(image, (columns, rows), dst=self._pixels, interpolation=cv2.INTER_NEAREST_EXACT)
        cv2.cvtColor(self._pixels, cv2.COLOR_RGB2GRAY, dst=self._grey)
        cv2.blur(self._grey, _SURROUNDINGS, dst=self._mean)
        np.subtract(self._mean, np.float32(_BRIGHT), out=maps["bright"])
        maps["bright"] *= np.float32(1 / (255 - _BRIGHT))
        for name in ("near", "bright"):
            np.maximum(maps[name], 0, out=maps[name])
        maps["dark"][:] = max(0.0, 1 - cv2.mean(self._grey)[0] / _DARK)
        soft = softness(image)
        maps["blur"][:] = max(0.0, soft - _SOFT)
        maps["noise"][:] = max(0.0, _HARD - soft)
        return self._maps


class ConfidenceEstimator:
    """Confidence of each pixel's depth. Buffers are kept between calls; not thread-safe.

    Args:
        camera: of the depth.
    """

    def __init__(self, camera: CameraModel) -> None:
        self.features = ConfidenceFeatures(camera)
        self._odds = np.empty(GRID, np.float32)
        self._size = (camera.height, camera.width)
        self._coefficients = np.array(COEFFICIENTS, np.float32)

    def __call__(
        self,
        depth: npt.NDArray[np.float32],
        image: npt.NDArray[np.uint8],
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The probability that max(Z / truth, truth / Z) is below 1.25 (delta1).

        Args:
            depth: HxW float32 metres; NaN unknown, -Inf too near, +Inf too far.
            image: HxWx3 uint8 RGB, rectified, the same pixels.
            out: HxW float32, contiguous, written to; None makes a new one.

        Returns:
            HxW float32, above 0 (a guess) and below 1 (sure); NaN where depth is not finite.

        Raises:
            ValueError: an array has another size than the camera.
        """
        maps = self.features(depth, image)
        if out is None:
            out = np.empty(self._size, np.float32)
        elif out.shape != self._size or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, not contiguous float32 {self._size}")
        odds = self._odds
        np.dot(self._coefficients, maps.reshape(len(FEATURES), -1), out=odds.reshape(-1))
        # 1 / (1 + exp(-log-odds))
        np.negative(odds, out=odds)
        np.exp(odds, out=odds)
        odds += 1
        np.reciprocal(odds, out=odds)
        cv2.resize(odds, out.shape[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
        # 0 Z is 0, and NaN for what is not finite.
        cv2.scaleAdd(depth, 0.0, out, dst=out)
        return out
