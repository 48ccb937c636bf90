"""ONNX Runtime: CPU or CUDA, and the reference that other engines are checked against."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.calibrated import calibration_needed, is_int8
from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.model import DepthModel

if TYPE_CHECKING:
    import onnxruntime

_LOGGER = logging.getLogger(__name__)
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_CUDA = "CUDAExecutionProvider"
# The first run captures the kernels and later ones replay them. ONNX Runtime refuses a session with
# it where a node has no kernel on the GPU; that runs without (its pull request 10859).
_CUDA_SETTINGS = ({"enable_cuda_graph": "1"}, dict[str, str]())
_CPU = ("CPUExecutionProvider", dict[str, str]())
_SILENT = 4  # fatal errors only


class OnnxEngine:
    """A network in ONNX Runtime, in the types of the file: on an NVIDIA GPU where the installed
    build has CUDA and there is one, else on the CPU.

    Other providers are left alone: TensorRT is an engine of its own, and the reference that
    engines are checked against must not depend on what else is installed.

    Raises:
        EngineError: ONNX Runtime is not installed, refuses the model, or the precision is not
            the file's.
    """

    def __init__(self, model: DepthModel, precision: str, cache_dir: Path | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"onnxruntime is not installed ({error}); pip install onnxruntime"
            ) from None
        own = model.metadata.document.get("precision")
        if precision == "int8" and not is_int8(model):
            raise calibration_needed(model)
        if precision not in ("auto", "float32", "int8") and precision != own:
            raise EngineError(f"precision {precision}: the onnx engine runs float32 or int8 models")
        self._session = _session(model)
        source, result = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.metadata, self.camera_size = model.metadata, model.camera_size
        self.declined: tuple[str, ...] = ()
        self.input_spec = TensorSpec(
            source.name, tuple(source.shape), _DTYPES.get(source.type, source.type)
        )
        self.output_spec = TensorSpec(
            result.name, tuple(result.shape), _DTYPES.get(result.type, result.type)
        )
        check_specs(
            str(model.path), model.metadata, self.input_spec, self.output_spec, model.camera_size
        )
        provider = self._session.get_providers()[0]
        self._on_gpu = provider == _CUDA
        device = "cuda" if self._on_gpu else "cpu"
        self._input = np.zeros(self.input_spec.shape, np.uint8)
        self._output = np.zeros(self.output_spec.shape, np.float32)
        # On the CPU these are the arrays themselves, on the GPU memory of their size.
        self._source = onnxruntime.OrtValue.ortvalue_from_numpy(self._input, device)
        self._result = onnxruntime.OrtValue.ortvalue_from_numpy(self._output, device)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(source.name, self._source)
        self._binding.bind_ortvalue_output(result.name, self._result)
        self._description = (
            f"onnxruntime {onnxruntime.__version__} {provider.removesuffix('ExecutionProvider')}"
            f" {own if own in ('int8', 'float16') else 'f32'}"
        )

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        try:
            if self._on_gpu:
                self._source.update_inplace(image[None])
            else:
                np.copyto(self._input[0], image)
            self._session.run_with_iobinding(self._binding)
            if self._on_gpu:
                np.copyto(self._output, self._result.numpy())
        except Exception as error:  # its exceptions share no base class but Exception
            raise EngineError(f"ONNX Runtime: {str(error).splitlines()[0]}") from None
        depth: npt.NDArray[np.float32] = self._output[0]
        return depth

    def describe(self) -> str:
        return self._description

    def close(self) -> None:
        del self._binding, self._source, self._result, self._session


def _session(model: DepthModel) -> onnxruntime.InferenceSession:
    """A session on the GPU if that works, else on the CPU.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    import onnxruntime

    def opened(providers: list[tuple[str, dict[str, str]]], **more: Any) -> Any:
        options = onnxruntime.SessionOptions()
        # Spinning threads answer a little sooner but take a core from the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _SILENT
        return onnxruntime.InferenceSession(model.onnx, options, providers=providers, **more)

    if _CUDA in onnxruntime.get_available_providers():
        # Where a library or the driver is missing, it prints a page and goes on without CUDA.
        onnxruntime.set_default_logger_severity(_SILENT)
        reason = ""
        for settings in _CUDA_SETTINGS:
            try:
                session = opened([(_CUDA, settings), _CPU], enable_fallback=False)
                if session.get_providers()[0] == _CUDA:
                    return session
                reason = "its libraries or the driver cannot be loaded"
            except Exception as error:  # as below
                reason = str(error).splitlines()[0]
        _LOGGER.warning("ONNX Runtime runs on the CPU, not with CUDA: %s", reason)
    try:
        return opened([_CPU])
    except Exception as error:  # its exceptions share no base class but Exception
        raise EngineError(f"{model.path}: ONNX Runtime: {str(error).splitlines()[0]}") from None
