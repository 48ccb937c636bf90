"""Calibrated int8 models: made once from the user's images, kept in the cache for every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.cache import CacheKey, EngineCache
from mono_depth_ros.engines.engine import EngineError
from mono_depth_ros.model import METADATA_KEY, DepthModel, ModelMetadata
from mono_depth_ros.parity import Agreement


def is_int8(model: DepthModel) -> bool:
    """Whether the file itself is a calibrated one."""
    return model.metadata.document.get("precision") == "int8"


def _key(model: DepthModel) -> CacheKey:
    # Whichever version quantised it: a Q/DQ model means the same to all of them.
    return CacheKey(
        kind="onnx",
        model=model.path.stem,
        digest=model.digest,
        runtime="onnxruntime",
        version="",
        device="",
        compute_capability="",
        precision="int8",
        shape=f"{model.metadata.height}x{model.metadata.width}",
    )


def _as_model(model: DepthModel, content: bytes) -> DepthModel:
    import onnx

    proto = onnx.load_model_from_string(content)
    text = next(entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY)
    metadata = ModelMetadata.from_json(text, str(model.path))
    return DepthModel(model.path, hashlib.sha256(content).hexdigest(), content, metadata)


def calibration_needed(model: DepthModel) -> EngineError:
    """What to tell who asks for int8 without one."""
    return EngineError(
        f"{model.path}: precision int8 needs a calibrated model; run build_engine {model.path}"
        " --precision int8 --calibrate DIR"
    )


def find_calibrated(model: DepthModel, cache: EngineCache) -> DepthModel | None:
    """The int8 form of a model, if one was calibrated; a model that is int8 already is its own.

    Raises:
        EngineError: the cache cannot be read.
    """
    if is_int8(model):
        return model
    content = cache.load(_key(model))
    return None if content is None else _as_model(model, content)


def calibrate(
    model: DepthModel, images: Iterable[npt.NDArray[np.uint8]], cache: EngineCache
) -> tuple[DepthModel, Agreement]:
    """Quantises a model on images of the user's and keeps it.

    Args:
        images: HxWx3 uint8 RGB at the model's input size; every second one sets the ranges, and
            the others check the result.

    Returns:
        The int8 model, and how far it is from float32, both in ONNX Runtime.

    Raises:
        EngineError: it is too far from float32, there are too few images, or the cache cannot be
            written to.
    """
    import onnx

    from mono_depth_ros.engines.onnx import OnnxEngine
    from mono_depth_ros.int8 import quantize
    from mono_depth_ros.parity import TOLERANCES, parity

    pictures = list(images)
    if len(pictures) < 2:
        raise EngineError("int8: two images are the least to calibrate with; give some dozens")
    proto = quantize(onnx.load_model_from_string(model.onnx), pictures[::2])
    int8 = _as_model(model, proto.SerializeToString())
    with (
        closing(OnnxEngine(model, "float32", None)) as reference,
        closing(OnnxEngine(int8, "int8", None)) as engine,
    ):
        agreement = parity(engine, reference, pictures[1::2])
    if faults := agreement.faults(*TOLERANCES["int8"]):
        raise EngineError(f"int8 is refused: {'; '.join(faults)}")
    cache.store(_key(model), int8.onnx, {"agreement": str(agreement), "images": len(pictures)})
    return int8, agreement
