"""Inference runtimes behind one `Engine` protocol: one file a runtime, one `open_engine`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mono_depth_ros.engines.engine import PRECISIONS, Engine, EngineError, TensorSpec
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.openvino import OpenVinoEngine
from mono_depth_ros.model import DepthModel, read_model

__all__ = ["ENGINES", "PRECISIONS", "Engine", "EngineError", "TensorSpec", "open_engine"]

# In the order that `auto` tries them.
_RUNTIMES: dict[str, Callable[[DepthModel, str, Path | None], Engine]] = {
    "openvino": OpenVinoEngine,
    "onnx": OnnxEngine,
}
ENGINES = ("auto", *_RUNTIMES)


def open_engine(
    model: str | Path,
    engine: str = "auto",
    precision: str = "auto",
    cache_dir: str | Path | None = None,
) -> Engine:
    """Loads an exported model into a runtime.

    Args:
        model: ONNX file with `mono_depth` metadata.
        engine: one of `ENGINES`; `auto` takes the first that loads.
        precision: `auto` (what the runtime thinks best), `float32` or `bfloat16`.
        cache_dir: where a runtime may keep what it compiled; None keeps nothing.

    Raises:
        ModelError: the file is missing, is not ONNX, or has no metadata.
        EngineError: no runtime loads it; the message says why for each.
        ValueError: unknown engine or precision.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}' is unknown; known: {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}' is unknown; known: {', '.join(PRECISIONS)}")
    opened_model = read_model(model)
    cache = Path(cache_dir) if cache_dir else None
    names = list(_RUNTIMES) if engine == "auto" else [engine]
    failures = []
    for name in names:
        try:
            opened = _RUNTIMES[name](opened_model, precision, cache)
        except EngineError as error:
            failures.append(f"{name}: {error}")
        else:
            opened.declined = tuple(failures)
            return opened
    raise EngineError("; ".join(failures))
