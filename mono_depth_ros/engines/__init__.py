"""Inference runtimes behind one `Engine` protocol: one file a runtime, one `open_engine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mono_depth_ros.engines.cache import open_cache
from mono_depth_ros.engines.calibrated import calibration_needed, find_calibrated
from mono_depth_ros.engines.engine import (
    PRECISIONS,
    Engine,
    EngineError,
    TensorSpec,
    UnavailableError,
)
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.openvino import OpenVinoEngine
from mono_depth_ros.engines.openvino_choice import auto_choice
from mono_depth_ros.engines.tensorrt_plans import NotBuiltError, open_plan
from mono_depth_ros.model import DepthModel, read_model

__all__ = [
    "CPU_ENGINES",
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "EngineError",
    "NotBuiltError",
    "TensorSpec",
    "UnavailableError",
    "open_engine",
    "open_first",
]

Open = Callable[[DepthModel, str, Path | None], Engine]


def _open_openvino(model: DepthModel, precision: str, cache_dir: Path | None) -> Engine:
    if precision == "auto":
        return OpenVinoEngine(*auto_choice(model, cache_dir), cache_dir)
    return OpenVinoEngine(_calibrated(model, precision, cache_dir), precision, cache_dir)


def _open_onnx(model: DepthModel, precision: str, cache_dir: Path | None) -> Engine:
    return OnnxEngine(_calibrated(model, precision, cache_dir), precision, cache_dir)


def _calibrated(model: DepthModel, precision: str, cache_dir: Path | None) -> DepthModel:
    """The model, or its int8 form from the cache where that is asked for."""
    if precision != "int8":
        return model
    found = find_calibrated(model, open_cache(cache_dir))
    if found is None:
        raise calibration_needed(model)
    return found


# In the order that `auto` tries them.
_RUNTIMES: dict[str, Open] = {
    "tensorrt": open_plan,
    "openvino": _open_openvino,
    "onnx": _open_onnx,
}
ENGINES = ("auto", *_RUNTIMES)
# Those that need nothing built, so that they can serve at once.
CPU_ENGINES = ("openvino", "onnx")


def open_engine(
    model: str | Path,
    engine: str = "auto",
    precision: str = "auto",
    cache_dir: str | Path | None = None,
) -> Engine:
    """Loads a model into a runtime. Builds nothing: TensorRT is taken where it is built already.

    Args:
        model: ONNX file with `mono_depth` metadata, or with a model card beside it.
        engine: one of `ENGINES`; `auto` takes the first that loads.
        precision: of `PRECISIONS`; `auto` is the fastest that was built or calibrated and passed
            its check, and otherwise float32.
        cache_dir: where built engines and calibrated models are, and where a runtime may keep what
            it compiled. None looks for the former in `default_cache_dir`, and keeps nothing.

    Raises:
        ModelError: the file is missing, is not ONNX, or does not say what it is.
        EngineError: no runtime loads it; the message says why for each.
        ValueError: unknown engine or precision.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}' is unknown; known: {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}' is unknown; known: {', '.join(PRECISIONS)}")
    names = ENGINES[1:] if engine == "auto" else (engine,)
    return open_first(names, read_model(model), precision, Path(cache_dir) if cache_dir else None)


def open_first(
    names: Sequence[str], model: DepthModel, precision: str, cache_dir: Path | None
) -> Engine:
    """Loads a model into the first of these runtimes that takes it.

    Raises:
        NotBuiltError: only TensorRT was asked for, and it could run the model if it were built.
        EngineError: none takes it; the message says why for each.
    """
    failures: list[EngineError] = []
    for name in names:
        try:
            opened = _RUNTIMES[name](model, precision, cache_dir)
        except EngineError as error:
            failures.append(type(error)(f"{name}: {error}"))
        else:
            opened.declined = tuple(map(str, failures))
            return opened
    if len(failures) == 1:
        raise failures[0]
    raise EngineError("; ".join(map(str, failures)))
