"""Which precision OpenVINO's `auto` takes: on this CPU, the fastest that agrees with float32.

Whether bfloat16 is faster depends on the CPU (three times with AMX, slower without) and on the
network, so it is measured, by `build_engine --engine openvino`, and noted in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.cache import CacheKey, EngineCache, open_cache
from mono_depth_ros.engines.calibrated import find_calibrated, is_int8
from mono_depth_ros.engines.engine import EngineError
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.openvino import OpenVinoEngine, cache_key
from mono_depth_ros.engines.tensorrt_build import Report
from mono_depth_ros.latency import time_calls
from mono_depth_ros.model import DepthModel
from mono_depth_ros.parity import TOLERANCES, parity, resized

CALLS = 20


@dataclass(frozen=True)
class Candidate:
    """A precision that was tried.

    Attributes:
        ms: median of a frame.
        agreement: how far it is from ONNX Runtime in float32.
        refused: why it may not be taken; empty if it may.
    """

    ms: float
    agreement: str
    refused: str


def _key(model: DepthModel) -> CacheKey:
    import openvino

    return cache_key(openvino.Core(), model, "choice", "auto")


def auto_choice(model: DepthModel, cache_dir: Path | None) -> tuple[DepthModel, str]:
    """What `auto` stands for: what was measured to be best, else int8 where the model was
    calibrated, else float32.

    Returns:
        What to run, which for int8 is the calibrated form, and the precision.
    """
    # A cache that cannot be used is no reason to give no depth.
    with suppress(EngineError, ImportError):
        cache, key = open_cache(cache_dir), _key(model)
        noted = cache.load(key)
        measured = (cache.facts(key) or {}) if noted is not None else {}
        calibrated = None if is_int8(model) else find_calibrated(model, cache)
        if calibrated is not None and (noted == b"int8" or "int8" not in measured):
            return calibrated, "int8"
        if noted is not None and noted != b"int8":
            return model, noted.decode()
    return model, "float32"


def choose_precision(
    model: DepthModel,
    cache: EngineCache,
    images: Sequence[npt.NDArray[np.uint8]],
    report: Report,
) -> tuple[str, dict[str, Candidate]]:
    """Measures the precisions of a model on this CPU, and notes the best one for `auto`.

    Args:
        images: HxWx3 uint8 RGB of any size, to check on.
        report: told the share that is done, 0 to 1, and what is being done.

    Returns:
        The precision, and what was measured of each.

    Raises:
        EngineError: OpenVINO cannot run the model, or the cache cannot be written to.
    """
    sources = {"float32": model, "bfloat16": model}
    calibrated = find_calibrated(model, cache)
    if calibrated is not None and not is_int8(model):
        sources["int8"] = calibrated
    found: dict[str, Candidate] = {}
    with closing(OnnxEngine(model, "auto", None)) as reference:
        for i, (precision, source) in enumerate(sources.items()):
            report(i / len(sources), f"measuring {precision}")
            with closing(OpenVinoEngine(source, precision, None)) as engine:
                agreement = parity(engine, reference, images)
                size = engine.input_spec.shape[1:3]
                times = time_calls(partial(engine.infer, resized(images[0], size)), CALLS)
            faults = agreement.faults(*TOLERANCES[precision])
            ms = round(float(np.median(times)), 2)
            found[precision] = Candidate(ms, str(agreement), "; ".join(faults))
    good = {name: candidate.ms for name, candidate in found.items() if not candidate.refused}
    if not good:
        raise EngineError(f"{model.path}: OpenVINO: {found['float32'].refused}")
    best = min(good, key=lambda name: good[name])
    cache.store(_key(model), best.encode(), {name: asdict(c) for name, c in found.items()})
    report(1.0, "done")
    return best, found
