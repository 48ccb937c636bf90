"""Plans of a model on this machine: found in the cache, or built, checked against ONNX Runtime in
float32, and kept.

A plan for the GPU at hand is kept only once its answers were checked on it, so whatever is found
under its key may serve. A plan that was built ahead of time, for a GPU that was not there, is
checked when it first meets one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.engines.cache import CacheKey, EngineCache, open_cache
from mono_depth_ros.engines.calibrated import calibration_needed, find_calibrated, is_int8
from mono_depth_ros.engines.cuda import Gpu
from mono_depth_ros.engines.engine import Engine, EngineError, UnavailableError
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.tensorrt import TensorRtEngine
from mono_depth_ros.engines.tensorrt_build import Report, build_plan, check_target
from mono_depth_ros.engines.tensorrt_library import TensorRtLibrary, libraries
from mono_depth_ros.model import DepthModel
from mono_depth_ros.parity import TOLERANCES, Agreement, parity

# In the order that `auto` tries them: the faster one first. There is no bfloat16: it has the range
# of float32 and fewer digits than float16, and depth needs the digits.
PRECISIONS = ("int8", "float16", "float32")
# The check and what follows it, as a share of the whole.
CHECK_SHARE = 0.05


class NotBuiltError(EngineError):
    """There are a GPU and a TensorRT, and no plan yet; `build_engine` makes one."""


@dataclass(frozen=True)
class Plan:
    """A plan that may be used.

    Attributes:
        path: the file.
        library: what built it.
        device: the GPU or compute capability that it is for.
        precision: that it was built with.
        agreement: how far it is from ONNX Runtime in float32, and where that was measured.
        refused: why faster precisions were not taken, by name.
        built: False where it was there already.
    """

    path: Path
    library: str
    device: str
    precision: str
    agreement: str
    refused: dict[str, str]
    built: bool


CameraSize = tuple[int, int]


def open_plan(
    model: DepthModel,
    precision: str,
    cache_dir: Path | None,
    camera_size: CameraSize | None = None,
) -> Engine:
    """Loads the plan of a model for the GPU at hand.

    Args:
        camera_size: height and width of the images of a camera, to have the steps around the
            network on the GPU, too; None is the bare network.

    Raises:
        NotBuiltError: there is none, or what there is cannot be used.
        UnavailableError: no GPU, no TensorRT, or a precision that it does not offer.
        EngineError: the driver is too old, the cache cannot be used, or the plan does not load.
    """
    gpu = Gpu()
    found = libraries()
    cache = open_cache(cache_dir)
    stale = []
    for library in found:
        for name, source in _candidates(model, precision, cache):
            key = _key(library, source, name, gpu, camera_size=camera_size)
            plan = _load(cache, key, precision)
            if plan is None:
                stale += [entry.reason for entry in cache.stale(key)]
                continue
            compiled = cache.load(_kernels(key)) or b""
            served = replace(source, camera_size=camera_size)
            engine = TensorRtEngine(library, gpu, plan, served, name, compiled)
            if engine.compiled and engine.compiled != compiled:
                # Without them the next start takes longer, and that is all.
                with suppress(EngineError):
                    cache.store(_kernels(key), engine.compiled, {})
            return engine
    reasons = "; ".join(dict.fromkeys([*cache.rejected, *stale]))
    camera = f" --camera {camera_size[1]}x{camera_size[0]}" if camera_size else ""
    raise NotBuiltError(
        f"no engine of {model.path.name} ({precision}) is built for {gpu.name}"
        f"{f' ({reasons})' if reasons else ''}; run build_engine {model.path}{camera}"
    )


def last_camera_size(
    model: DepthModel, precision: str, cache_dir: Path | None
) -> CameraSize | None:
    """The camera size that a plan of the model was last used for; None where there is no plan.

    Raises:
        UnavailableError: no GPU, no TensorRT, or a precision that it does not offer.
        EngineError: the driver is too old, or the cache cannot be used.
    """
    Gpu()
    libraries()
    cache = open_cache(cache_dir)
    digests = {source.digest for _, source in _candidates(model, precision, cache)}
    for entry in cache.entries():
        _, at, size = entry.key.shape.partition("@")
        if entry.key.kind == "plan" and entry.key.digest in digests and at:
            height, width = size.split("x")
            return int(height), int(width)
    return None


def build(
    model: DepthModel,
    precision: str,
    cache: EngineCache,
    images: Sequence[npt.NDArray[np.uint8]],
    report: Report,
    target: str | None = None,
    camera_size: CameraSize | None = None,
) -> Plan:
    """Makes the plan of a model, unless it is there. One process builds, others wait for it.

    Args:
        precision: of `PRECISIONS`, or `auto`: the first of them that passes the check; int8 only
            where the model was calibrated.
        images: HxWx3 uint8 RGB to check on, of any size.
        report: told the share that is done, 0 to 1, and what is being done.
        target: compute capability to build for ahead of time; None builds for the GPU at hand.
        camera_size: as of `open_plan`.

    Raises:
        EngineError: no GPU or no TensorRT, or no precision can be built and passes; the message
            has the reason for each.
    """
    gpu = Gpu() if target is None else None
    failures: list[str] = []
    for library in libraries():
        if target is not None:
            try:
                check_target(library, target)
            except EngineError as error:
                failures.append(str(error))
                continue
        lock = _key(library, model, "any", gpu, target, camera_size)
        with cache.building(lock, lambda: report(0.0, "waiting: another process builds it")):
            refused: dict[str, str] = {}
            for name, source in _candidates(model, precision, cache):
                key = _key(library, source, name, gpu, target, camera_size)
                if _load(cache, key, precision) is not None:
                    return _plan(cache, key, library, name, built=False)
                try:
                    runs = typed(source, name, camera_size)
                    plan = _make(library, runs, key, cache, report, target)
                    report(1 - CHECK_SHARE, "checking against ONNX Runtime")
                    agreement, where = _check(library, gpu, plan, model, runs, name, images)
                except EngineError as error:
                    refused[name] = str(error)
                    continue
                facts = {"agreement": f"{agreement}; {where}", "refused": refused}
                cache.store(key, plan, facts)
                report(1.0, "done")
                return _plan(cache, key, library, name, built=True)
        reasons = dict.fromkeys(refused.values())
        for reason in reasons:
            names = ", ".join(name for name, text in refused.items() if text == reason)
            failures.append(f"{names}: {reason}")
    raise EngineError("; ".join(failures))


def _candidates(
    model: DepthModel, precision: str, cache: EngineCache
) -> Iterator[tuple[str, DepthModel]]:
    """Precisions to try, each with the model that it is made from."""
    if precision not in ("auto", *PRECISIONS):
        raise UnavailableError(f"precision {precision}: tensorrt runs {', '.join(PRECISIONS)}")
    calibrated = find_calibrated(model, cache) if precision in ("auto", "int8") else None
    if calibrated is not None:
        yield "int8", calibrated
    elif precision == "int8":
        raise calibration_needed(model)
    # A file with integers in it is what it is.
    if precision != "int8" and not is_int8(model):
        yield from ((name, model) for name in PRECISIONS[1:] if precision in ("auto", name))


@cached
def _conversion() -> str:
    """Stands for how this version of the package converts networks: another one builds anew."""
    digest = hashlib.sha256()
    folder = Path(__file__).resolve().parents[1]
    for name in ("camera_graph", "card_graph", "filters", "float16", "int8", "onnx_graph"):
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()[:8]


def _key(
    library: TensorRtLibrary,
    source: DepthModel,
    precision: str,
    gpu: Gpu | None,
    target: str | None = None,
    camera_size: CameraSize | None = None,
) -> CacheKey:
    shape = f"{source.metadata.height}x{source.metadata.width}"
    if camera_size is not None:
        shape += f"@{camera_size[0]}x{camera_size[1]}"
    # Kernels are picked for one GPU, and by its driver.
    device = f"{gpu.name}, driver {gpu.driver}" if gpu else ""
    return CacheKey(
        kind="plan",
        model=source.path.stem,
        digest=source.digest,
        runtime=library.name,
        version=f"{library.version}+{_conversion()}",
        device=device,
        compute_capability=gpu.compute_capability if gpu else str(target).lower(),
        precision=precision,
        shape=shape,
    )


def _kernels(key: CacheKey) -> CacheKey:
    """Where the kernels are that loading a plan compiled."""
    return replace(key, kind="runtime")


def _measurements(key: CacheKey) -> CacheKey:
    """Where the measurements of a library on a GPU are, of all models."""
    return replace(key, kind="timing", model="", digest="", precision="", shape="")


def _load(cache: EngineCache, key: CacheKey, asked: str) -> bytes | None:
    """A plan that may serve; for `auto`, one that is slower than could be had may not."""
    if asked == "auto" and key.precision == PRECISIONS[-1]:
        refused = (cache.facts(key) or {}).get("refused")
        if not isinstance(refused, dict) or PRECISIONS[-2] not in refused:
            return None
    return cache.load(key)


def _plan(
    cache: EngineCache, key: CacheKey, library: TensorRtLibrary, precision: str, built: bool
) -> Plan:
    facts = cache.facts(key) or {}
    refused = facts.get("refused")
    return Plan(
        path=cache.directory / key.filename,
        library=library.title,
        device=key.device or key.compute_capability,
        precision=precision,
        agreement=str(facts.get("agreement", "")),
        refused=dict(refused) if isinstance(refused, dict) else {},
        built=built,
    )


def typed(source: DepthModel, precision: str, camera_size: CameraSize | None = None) -> DepthModel:
    """The model as TensorRT shall run it: the types in the file are those it computes in.

    Raises:
        EngineError: its operators cannot be typed so.
    """
    import onnx

    from mono_depth_ros.camera_graph import with_camera
    from mono_depth_ros.float16 import to_float16, uint8_into_cast

    try:
        proto = uint8_into_cast(onnx.load_model_from_string(source.onnx))
        if precision != "float32":
            proto = to_float16(proto)
        result = replace(source, onnx=proto.SerializeToString())
        return result if camera_size is None else with_camera(result, *camera_size)
    except ValueError as error:
        raise EngineError(f"{source.path}: {error}") from None


def _make(
    library: TensorRtLibrary,
    runs: DepthModel,
    key: CacheKey,
    cache: EngineCache,
    report: Report,
    target: str | None,
) -> bytes:
    """The plan, from an earlier build ahead of time or a new one."""
    if target is None and library.traits.ahead_of_time:
        ahead = cache.load(replace(key, device=""))
        if ahead is not None:
            return ahead
    timing = cache.load(_measurements(key)) or b""
    result = build_plan(
        library,
        runs.onnx,
        f"{runs.path.name} ({key.precision})",
        lambda share, phase: report(share * (1 - CHECK_SHARE), phase),
        target,
        timing,
    )
    if result.timing_cache and result.timing_cache != timing:
        with suppress(EngineError):
            cache.store(_measurements(key), result.timing_cache, {})
    return result.plan


def _check(
    library: TensorRtLibrary,
    gpu: Gpu | None,
    plan: bytes,
    model: DepthModel,
    runs: DepthModel,
    precision: str,
    images: Sequence[npt.NDArray[np.uint8]],
) -> tuple[Agreement, str]:
    """How far the plan is from the model in float32, and where it was run.

    Without the GPU it is the converted model that is run, in ONNX Runtime.

    Raises:
        EngineError: too far, or it does not run.
    """
    if runs.camera_size is not None:
        from mono_depth_ros.camera_graph import with_camera

        model = with_camera(model, *runs.camera_size)
    with closing(OnnxEngine(model, "auto", None)) as reference:
        engine: Engine
        if gpu is None:
            engine, where = OnnxEngine(runs, "auto", None), "the converted model in ONNX Runtime"
        else:
            engine, where = TensorRtEngine(library, gpu, plan, runs, precision), f"on {gpu.name}"
        with closing(engine):
            agreement = parity(engine, reference, images)
    if faults := agreement.faults(*TOLERANCES[precision]):
        raise EngineError(f"refused, {'; '.join(faults)}, {where}")
    return agreement, where
