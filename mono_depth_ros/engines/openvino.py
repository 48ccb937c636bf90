"""OpenVINO: the default on CPUs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.cache import CacheKey, open_cache
from mono_depth_ros.engines.calibrated import calibration_needed, is_int8
from mono_depth_ros.engines.engine import EngineError, TensorSpec, check_image, check_specs
from mono_depth_ros.model import DepthModel

if TYPE_CHECKING:
    import openvino

_LOGGER = logging.getLogger(__name__)
# OpenVINO's own default is bfloat16 wherever the CPU knows the instructions. It rounds log depth
# before the exponential, which leaves steps of 0.4-0.8 % in the surfaces, and without AMX it is
# slower for small networks (28 ms against 16 ms for compact on two cores of a Xeon with
# AVX512-BF16), so it must be asked for. INT8 is in the file; what it leaves is float32.
_HINTS = {
    "auto": "f32",
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f32",
    "int8": "f32",
}


class OpenVinoEngine:
    """A network compiled for the CPU, tuned for the latency of one image at a time.

    With a cache directory what was compiled is kept there. Not by OpenVINO's own cache: it believes
    a file of which a part was overwritten, and answers wrongly from then on. A cache that cannot be
    used is logged and done without.

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
        if precision == "int8" and not is_int8(model):
            raise calibration_needed(model)
        if precision == "float16" and model.metadata.document.get("precision") != "float16":
            raise EngineError("precision float16: CPUs compute in float32 or bfloat16; take those")
        try:
            self._compiled = _compiled(openvino.Core(), model, _HINTS[precision], cache_dir)
            self._request = self._compiled.create_infer_request()
            source, result = self._compiled.input(0), self._compiled.output(0)
            self._input = np.zeros(tuple(source.shape), np.uint8)
            # The request reads this array in place; `infer` fills it.
            self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))
            self._output = self._request.get_output_tensor(0).data
        except RuntimeError as error:
            raise EngineError(f"{model.path}: OpenVINO: {_reason(error)}") from None
        self.metadata, self.camera_size = model.metadata, model.camera_size
        self.declined: tuple[str, ...] = ()
        self.input_spec = TensorSpec(
            source.any_name, tuple(source.shape), source.element_type.to_dtype().name
        )
        self.output_spec = TensorSpec(
            result.any_name, tuple(result.shape), result.element_type.to_dtype().name
        )
        check_specs(
            str(model.path), model.metadata, self.input_spec, self.output_spec, model.camera_size
        )
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        name = used.to_string() if hasattr(used, "to_string") else str(used)
        version = openvino.__version__.split("-")[0]
        self._description = f"openvino {version} CPU {'int8+' if is_int8(model) else ''}{name}"

    def infer(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_image(image, self.input_spec)
        np.copyto(self._input[0], image)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO: {_reason(error)}") from None
        depth: npt.NDArray[np.float32] = self._output[0]
        return depth

    def describe(self) -> str:
        return self._description

    def close(self) -> None:
        del self._output, self._request, self._compiled


def cache_key(core: openvino.Core, model: DepthModel, kind: str, precision: str) -> CacheKey:
    """Where something is kept that depends on the model, on OpenVINO and on the CPU."""
    # A virtual machine may change its features and keep its name.
    device = [core.get_property("CPU", "FULL_DEVICE_NAME")]
    device += sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return CacheKey(
        kind=kind,
        model=model.path.stem,
        digest=model.digest,
        runtime="openvino",
        version=core.get_versions("CPU")["CPU"].build_number,
        device=" ".join(device),
        compute_capability="",
        precision=precision,
        shape=f"{model.metadata.height}x{model.metadata.width}",
    )


def _reason(error: Exception) -> str:
    """The line that says why: of several the operators that it lacks, else the last one; those
    above name places in OpenVINO's source.
    """
    lines = str(error).strip().splitlines()
    missing = [line.lstrip("- ") for line in lines if line.startswith("-- ")]
    return "; ".join(missing) or lines[-1]


def _compiled(
    core: openvino.Core, model: DepthModel, hint: str, cache_dir: Path | None
) -> openvino.CompiledModel:
    """The network for the CPU, from the cache where it is there.

    Raises:
        RuntimeError: OpenVINO refuses it.
    """
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": hint,
    }
    cache = key = None
    if cache_dir is not None:
        key = cache_key(core, model, "runtime", hint)
        try:
            cache = open_cache(cache_dir)
            kept = cache.load(key)
            for reason in cache.rejected:
                _LOGGER.warning("%s", reason)
            if kept is not None:
                return core.import_model(kept, "CPU", config)
        except (EngineError, RuntimeError) as error:
            _LOGGER.warning("nothing of OpenVINO's is taken from the cache: %s", _reason(error))
    compiled = core.compile_model(core.read_model(model.onnx), "CPU", config)
    if cache is not None and key is not None:
        try:
            cache.store(key, compiled.export_model().getvalue(), {})
        except EngineError as error:
            _LOGGER.warning("nothing of OpenVINO's is kept in the cache: %s", error)
    return compiled
