"""Image + camera -> metric depth at camera resolution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.aspect import ASPECTS, Framing, Window, window
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.engines import Engine, open_engine
from mono_depth_ros.filters import EdgeAwareUpsampler
from mono_depth_ros.model import default_model

# Up-sampling stays between the least and the greatest depth that it is given, but for rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class DepthFrame:
    """One estimate. The arrays belong to the estimator and are overwritten by its next call.

    Attributes:
        depth: HxW float32 metres along Z. NaN invalid, -Inf nearer than the minimum, +Inf further
            than the maximum (REP 117).
        image: HxWx3 uint8 RGB, rectified, the same pixels as `depth`.
        camera: intrinsics of both.
        engine_ms: time in the network; preprocess_ms and postprocess_ms: before and after it.
        non_finite: number of network outputs that were not finite.
        valid: number of pixels with finite depth.
    """

    depth: npt.NDArray[np.float32]
    image: npt.NDArray[np.uint8]
    camera: CameraModel
    preprocess_ms: float
    engine_ms: float
    postprocess_ms: float
    non_finite: int
    valid: int


class Rectifier:
    """Turns images of one calibrated camera into those of an ideal one.

    Raises:
        ValueError: the calibration is not usable (see `Calibration`).
    """

    def __init__(self, calibration: Calibration) -> None:
        self.camera = calibration.rectified()
        #: What `Calibration.rectify_maps` gives.
        self.maps = calibration.rectify_maps()
        self._buffer: npt.NDArray[np.uint8] | None = None
        #: HxW mask of pixels that the camera does not see, or None.
        self.outside = self.maps[2] if self.maps and self.maps[2].any() else None

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Rectifies HxWx3 uint8; an image that is rectified already is returned as it is."""
        if self.maps is None:
            return image
        # The border repeats the last pixel rather than black, which the network would read as a
        # dark object; `outside` removes its depth.
        self._buffer = np.asarray(
            cv2.remap(
                image,
                *self.maps[:2],
                cv2.INTER_LINEAR,
                dst=self._buffer,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )
        return self._buffer


class DepthEstimator:
    """A network with the geometry around it. Not thread-safe: one caller at a time.

    Args:
        engine: a loaded network.
        min_depth, max_depth: metres; what is nearer becomes -Inf, what is further +Inf.
        clock: seconds, monotonic; for the timings.
        aspect: what of images of another shape than the network's input it sees: `aspect.ASPECTS`.

    Raises:
        ValueError: the range is empty, or another aspect.
    """

    def __init__(
        self,
        engine: Engine,
        min_depth: float = 0.1,
        max_depth: float = 10.0,
        clock: Callable[[], float] = time.perf_counter,
        aspect: str = "stretch",
    ) -> None:
        self.engine = engine
        self.set_range(min_depth, max_depth)
        self.set_aspect(aspect)
        self._clock = clock
        self._upsampler: EdgeAwareUpsampler | None = None
        self._framing: Framing | None = None
        self._input = np.empty(engine.input_spec.shape[1:], np.uint8)
        self._mask = np.empty((0, 0), np.bool_)

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        engine: str = "auto",
        precision: str = "auto",
        min_depth: float = 0.1,
        max_depth: float = 10.0,
    ) -> DepthEstimator:
        """Loads `model` (None: the one that ships) into an engine; errors as `open_engine`."""
        opened = open_engine(model or default_model(), engine, precision)
        return cls(opened, min_depth, max_depth)

    def set_range(self, min_depth: float, max_depth: float) -> None:
        """Sets the valid range in metres.

        Raises:
            ValueError: not 0 <= min_depth < max_depth.
        """
        if not 0 <= min_depth < max_depth:
            raise ValueError(f"depth range {min_depth} to {max_depth} m is empty")
        self.min_depth, self.max_depth = min_depth, max_depth

    def set_aspect(self, aspect: str) -> None:
        """Sets what of images of another shape than the network's input it sees, from now on.

        Raises:
            ValueError: not one of `aspect.ASPECTS`.
        """
        if aspect not in ASPECTS:
            raise ValueError(f"aspect '{aspect}' is not one of {', '.join(ASPECTS)}")
        self.aspect = aspect

    def focal_scale(self, camera: CameraModel) -> float:
        """Factor from the network's depth to metres for `camera`.

        A network reads distance off apparent size, which is f / Z. Trained at f_train, it answers
        Z_net with f_train / Z_net = f_in / Z, so Z = Z_net * f_in / f_train, both in pixels of the
        network's input. Where width and height are resized by different factors, f is the
        geometric mean of fx and fy, as in training.

        Args:
            camera: of what is resized to the network's input: the whole image, or its window.
        """
        metadata = self.engine.metadata
        return camera.scaled(metadata.width, metadata.height).focal / metadata.focal

    def estimate(
        self,
        image: npt.NDArray[np.uint8],
        camera: CameraModel,
        outside: npt.NDArray[np.bool_] | None = None,
    ) -> DepthFrame:
        """Estimates depth.

        Args:
            image: HxWx3 uint8 RGB, rectified, contiguous.
            camera: its intrinsics.
            outside: HxW mask of pixels without image, which become NaN.

        Raises:
            ValueError: image and camera differ in size, the image is not HxWx3 uint8, or the engine
                is for camera images of another size (`aspect.window_size`).
            EngineError: the runtime failed.
        """
        fine = (camera.height, camera.width)
        if image.shape != (*fine, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, the camera model is for"
                f" {camera.width}x{camera.height} uint8 RGB"
            )
        started = prepared = self._clock()
        framing = self._framing_of(fine)
        seen, view = image, camera
        if framing is not None:
            w = framing.window
            seen, view = framing.cut(image), camera.cropped(w.x, w.y, w.width, w.height)
        if self.engine.camera_size is None:
            height, width = self.engine.input_spec.shape[1:3]
            cv2.resize(seen, (width, height), dst=self._input, interpolation=cv2.INTER_AREA)
            prepared = self._clock()
            answer = self.engine.infer(self._input)
        else:
            prepared = self._clock()
            answer = self.engine.infer(seen)
        inferred = self._clock()
        # Not finite where any of the answer is not, and then all of it is looked at.
        low, high = float(answer.min()), float(answer.max())
        non_finite = 0
        if not (math.isfinite(low) and math.isfinite(high)):
            non_finite = answer.size - int(np.count_nonzero(np.isfinite(answer)))
        depth = answer if self.engine.camera_size else self._upsampled(answer, seen)
        scale = self.focal_scale(view)
        if framing is None:
            depth *= np.float32(scale)
        else:
            np.multiply(framing.covered(depth), np.float32(scale), out=framing.inner)
            depth = framing.depth
        covered = depth.size if framing is None else framing.inner.size
        valid = self._limit(depth, covered, (low * scale, high * scale), outside)
        return DepthFrame(
            depth=depth,
            image=image,
            camera=camera,
            preprocess_ms=(prepared - started) * 1e3,
            engine_ms=(inferred - prepared) * 1e3,
            postprocess_ms=(self._clock() - inferred) * 1e3,
            non_finite=non_finite,
            valid=valid,
        )

    def _framing_of(self, camera_size: tuple[int, int]) -> Framing | None:
        """What cuts out the window that the network sees; None where that is the whole image."""
        metadata = self.engine.metadata
        seen = window(camera_size, (metadata.height, metadata.width), self.aspect)
        if seen == Window(0, 0, camera_size[1], camera_size[0]):
            self._framing = None
        elif self._framing is None or (self._framing.camera_size, self._framing.window) != (
            camera_size,
            seen,
        ):
            self._framing = Framing(camera_size, seen)
        return self._framing

    def _limit(
        self,
        depth: npt.NDArray[np.float32],
        covered: int,
        extremes: tuple[float, float],
        outside: npt.NDArray[np.bool_] | None,
    ) -> int:
        """Replaces, in place, what is out of range or outside the image; returns what is left.

        Args:
            covered: the number of pixels that the network saw; the others are NaN.
            extremes: the least and the greatest depth before up-sampling, metres; not finite if any
                was not.

        Returns:
            The number of finite pixels.
        """
        low, high = extremes
        # Most frames are within range, and two numbers tell. Written so that NaN is not.
        all_far_enough = low > 0 and low * (1 - _ROUNDING) > self.min_depth
        all_near_enough = high * (1 + _ROUNDING) < self.max_depth and math.isfinite(high)
        if all_far_enough and all_near_enough and outside is None:
            return covered
        if self._mask.shape != depth.shape:
            self._mask = np.empty(depth.shape, np.bool_)
        if not all_far_enough:
            np.less(depth, self.min_depth, out=self._mask)
            np.copyto(depth, -np.inf, where=self._mask)
        if not all_near_enough:
            np.greater(depth, self.max_depth, out=self._mask)
            np.copyto(depth, np.inf, where=self._mask)
        if outside is not None:
            np.copyto(depth, np.nan, where=outside)
        return int(np.count_nonzero(np.isfinite(depth, out=self._mask)))

    def _upsampled(
        self, coarse: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        sizes = ((coarse.shape[0], coarse.shape[1]), (image.shape[0], image.shape[1]))
        if self._upsampler is None or (self._upsampler.coarse, self._upsampler.fine) != sizes:
            self._upsampler = EdgeAwareUpsampler(*sizes)
        return self._upsampler(coarse, image)

    def close(self) -> None:
        """Frees the network."""
        self.engine.close()
