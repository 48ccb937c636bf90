"""A checkpoint behind the interface of an engine, so that it is measured as robots would run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.model import ModelMetadata
from training.bytes_to_metres import document, load_bytes_to_metres


class TorchEngine:
    """The averaged network of a checkpoint in PyTorch, in float32, at its last training size; on an
    NVIDIA GPU where there is one. An `Engine` of `mono_depth_ros.engines`.

    Raises:
        ValueError: the checkpoint is missing or not one of ours.
        EngineError: its output is not what engines give.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, info = load_bytes_to_metres(checkpoint)
        self._network = network.to(self._device)
        shape = (1, info.height, info.width, 3)
        self.input_spec = TensorSpec("image", shape, "uint8")
        output = self._run(torch.zeros(shape, dtype=torch.uint8))
        self.output_spec = TensorSpec("depth", output.shape, str(output.dtype))
        text = json.dumps(document(info, (info.height, info.width)))
        self.metadata = ModelMetadata.from_json(text, str(checkpoint))
        self.camera_size: tuple[int, int] | None = None
        self.declined: tuple[str, ...] = ()
        check_specs(str(checkpoint), self.metadata, self.input_spec, self.output_spec)

    def _run(self, image: torch.Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            depth: npt.NDArray[np.float32] = self._network(image.to(self._device)).cpu().numpy()
        return depth

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        try:
            depth = self._run(torch.from_numpy(image)[None])
        except RuntimeError as error:
            raise EngineError(f"PyTorch: {str(error).splitlines()[0]}") from None
        answer: npt.NDArray[np.float32] = depth[0]
        return answer

    def describe(self) -> str:
        cuda = self._device.type == "cuda"
        device = torch.cuda.get_device_name(self._device) if cuda else "CPU"
        return f"torch {torch.__version__} {device} f32"

    def close(self) -> None:
        del self._network
