"""ONNX Runtime: any provider, and the reference that other engines are checked against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.model import DepthModel

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxEngine:
    """A network in ONNX Runtime, on the best provider that is installed, in float32.

    Raises:
        EngineError: ONNX Runtime is not installed, refuses the model, or the precision is not
            float32.
    """

    def __init__(self, model: DepthModel, precision: str, cache_dir: Path | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"onnxruntime is not installed ({error}); pip install onnxruntime"
            ) from None
        if precision not in ("auto", "float32"):
            raise EngineError(f"precision {precision}: the onnx engine runs float32 only")
        options = onnxruntime.SessionOptions()
        # Spinning threads answer a little sooner but take a core from the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # Azure is a remote service that some builds list first; it runs no network here.
        providers = [p for p in onnxruntime.get_available_providers() if not p.startswith("Azure")]
        try:
            self._session = onnxruntime.InferenceSession(model.onnx, options, providers=providers)
        except Exception as error:  # its exceptions share no base class but Exception
            raise EngineError(f"{model.path}: ONNX Runtime: {str(error).splitlines()[0]}") from None
        source, result = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.metadata = model.metadata
        self.declined: tuple[str, ...] = ()
        self.input_spec = TensorSpec(
            source.name, tuple(source.shape), _DTYPES.get(source.type, source.type)
        )
        self.output_spec = TensorSpec(
            result.name, tuple(result.shape), _DTYPES.get(result.type, result.type)
        )
        check_specs(str(model.path), model.metadata, self.input_spec, self.output_spec)
        self._input = np.zeros(self.input_spec.shape, np.uint8)
        self._output = np.zeros(self.output_spec.shape, np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(
            source.name, onnxruntime.OrtValue.ortvalue_from_numpy(self._input)
        )
        self._binding.bind_ortvalue_output(
            result.name, onnxruntime.OrtValue.ortvalue_from_numpy(self._output)
        )
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self._description = f"onnxruntime {onnxruntime.__version__} {provider} f32"

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        np.copyto(self._input[0], image)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime: {str(error).splitlines()[0]}") from None
        depth: npt.NDArray[np.float32] = self._output[0]
        return depth

    def describe(self) -> str:
        return self._description

    def close(self) -> None:
        del self._binding, self._session
