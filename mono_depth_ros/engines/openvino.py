"""OpenVINO: the default on CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.model import DepthModel

# OpenVINO's own default is bfloat16 wherever the CPU knows the instructions. It rounds log depth
# before the exponential, which leaves steps of 0.4-0.8 % in the surfaces, and without AMX it is
# slower (28 ms against 16 ms on two cores of a Xeon with AVX512-BF16), so it must be asked for.
_HINTS = {"auto": "f32", "float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """A network compiled for the CPU, tuned for the latency of one image at a time.

    Raises:
        EngineError: OpenVINO is not installed, or refuses the model or the precision.
    """

    def __init__(self, model: DepthModel, precision: str, cache_dir: Path | None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                f"openvino is not installed ({error}); pip install openvino"
            ) from None
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }
        if cache_dir is not None:
            config["CACHE_DIR"] = str(cache_dir)
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(model.onnx), "CPU", config)
            self._request = self._compiled.create_infer_request()
            source, result = self._compiled.input(0), self._compiled.output(0)
            self._input = np.zeros(tuple(source.shape), np.uint8)
            # The request reads this array in place; `infer` fills it.
            self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))
            self._output = self._request.get_output_tensor(0).data
        except RuntimeError as error:
            raise EngineError(
                f"{model.path}: OpenVINO: {str(error).strip().splitlines()[-1]}"
            ) from None
        self.metadata = model.metadata
        self.declined: tuple[str, ...] = ()
        self.input_spec = TensorSpec(
            source.any_name, tuple(source.shape), source.element_type.to_dtype().name
        )
        self.output_spec = TensorSpec(
            result.any_name, tuple(result.shape), result.element_type.to_dtype().name
        )
        check_specs(str(model.path), model.metadata, self.input_spec, self.output_spec)
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        name = used.to_string() if hasattr(used, "to_string") else str(used)
        version = openvino.__version__.split("-")[0]
        self._description = f"openvino {version} CPU {name}"

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        np.copyto(self._input[0], image)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO: {str(error).strip().splitlines()[-1]}") from None
        depth: npt.NDArray[np.float32] = self._output[0]
        return depth

    def describe(self) -> str:
        return self._description

    def close(self) -> None:
        del self._output, self._request, self._compiled
