"""What every engine offers, whatever runtime is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mono_depth_ros.model import ModelMetadata

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


class EngineError(RuntimeError):
    """A runtime that cannot be loaded or cannot run a model; the message names the remedy."""


class UnavailableError(EngineError):
    """A runtime that is not for this machine: nothing is broken, and another one is to be taken."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and NumPy dtype of a model's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Engine(Protocol):
    """A loaded network.

    Attributes:
        metadata: what the model says of itself.
        input_spec, output_spec: its tensors.
        camera_size: height and width of the camera's images, where the engine takes those and
            answers at their size (`mono_depth_ros.camera_graph`); None for the bare network.
        declined: why runtimes that `auto` would have preferred were not taken.
    """

    metadata: ModelMetadata
    input_spec: TensorSpec
    output_spec: TensorSpec
    camera_size: tuple[int, int] | None
    declined: tuple[str, ...]

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Depth of one image.

        Args:
            image: HxWx3 uint8 RGB, contiguous, of the input size.

        Returns:
            hxw float32 metres at the training focal length. The array belongs to the engine and
            is overwritten by the next call.

        Raises:
            ValueError: another shape or dtype.
            EngineError: the runtime failed.
        """
        ...

    def describe(self) -> str:
        """Runtime, version, device and precision, for logs and diagnostics."""
        ...

    def close(self) -> None:
        """Frees the network; `infer` must not be called afterwards."""
        ...


def check_specs(
    path: str,
    metadata: ModelMetadata,
    inputs: TensorSpec,
    output: TensorSpec,
    camera_size: tuple[int, int] | None = None,
) -> None:
    """Holds a loaded model to the contract: uint8 1xHxWx3 in, float32 1xhxw out.

    Raises:
        EngineError: it is otherwise.
    """
    expected = (1, *(camera_size or (metadata.height, metadata.width)), 3)
    if inputs.shape != expected or inputs.dtype != "uint8":
        raise EngineError(
            f"{path}: input is {inputs.dtype} {inputs.shape}, metadata says uint8 {expected};"
            " export the model again"
        )
    if len(output.shape) != 3 or output.shape[0] != 1 or output.dtype != "float32":
        raise EngineError(
            f"{path}: output is {output.dtype} {output.shape}, not float32 1xhxw;"
            " export the model again"
        )


def check_image(image: npt.NDArray[np.uint8], spec: TensorSpec) -> None:
    """Raises ValueError unless `image` is contiguous and has the shape and dtype of the input."""
    if image.shape != spec.shape[1:] or image.dtype != np.uint8 or not image.flags.c_contiguous:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, the network takes contiguous uint8"
            f" {spec.shape[1:]}"
        )
