"""Image + camera -> metric depth at camera resolution."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.engines import Engine, open_engine
from mono_depth_ros.filters import EdgeAwareUpsampler
from mono_depth_ros.model import default_model


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
    """

    depth: npt.NDArray[np.float32]
    image: npt.NDArray[np.uint8]
    camera: CameraModel
    preprocess_ms: float
    engine_ms: float
    postprocess_ms: float
    non_finite: int


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

    Raises:
        ValueError: the range is empty.
    """

    def __init__(
        self,
        engine: Engine,
        min_depth: float = 0.1,
        max_depth: float = 10.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine = engine
        self.set_range(min_depth, max_depth)
        self._clock = clock
        self._upsampler: EdgeAwareUpsampler | None = None
        self._input = np.empty(engine.input_spec.shape[1:], np.uint8)

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

    def focal_scale(self, camera: CameraModel) -> float:
        """Factor from the network's depth to metres for `camera`.

        A network reads distance off apparent size, which is f / Z. Trained at f_train, it answers
        Z_net with f_train / Z_net = f_in / Z, so Z = Z_net * f_in / f_train, both in pixels of the
        network's input. Where width and height are resized by different factors, f is the
        geometric mean of fx and fy, as in training.
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
                is for camera images of another size.
            EngineError: the runtime failed.
        """
        fine = (camera.height, camera.width)
        if image.shape != (*fine, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, the camera model is for"
                f" {camera.width}x{camera.height} uint8 RGB"
            )
        started = prepared = self._clock()
        if self.engine.camera_size is None:
            height, width = self.engine.input_spec.shape[1:3]
            cv2.resize(image, (width, height), dst=self._input, interpolation=cv2.INTER_AREA)
            prepared = self._clock()
            answer = self.engine.infer(self._input)
        else:
            answer = self.engine.infer(image)
        inferred = self._clock()
        non_finite = int(answer.size - np.count_nonzero(np.isfinite(answer)))
        depth = answer if self.engine.camera_size else self._upsampled(answer, image)
        depth *= np.float32(self.focal_scale(camera))
        np.copyto(depth, -np.inf, where=depth < self.min_depth)
        np.copyto(depth, np.inf, where=depth > self.max_depth)
        if outside is not None:
            np.copyto(depth, np.nan, where=outside)
        return DepthFrame(
            depth=depth,
            image=image,
            camera=camera,
            preprocess_ms=(prepared - started) * 1e3,
            engine_ms=(inferred - prepared) * 1e3,
            postprocess_ms=(self._clock() - inferred) * 1e3,
            non_finite=non_finite,
        )

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
