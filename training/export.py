"""Exports a checkpoint to one self-contained ONNX file: camera bytes in, metres out.

Colour scaling, normalisation, layout and the way back from what the network predicts to metres are
in the graph; what a robot must know (training focal length, range, data, accuracy) is in the
metadata. The file is checked against PyTorch before it takes its name.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from mono_depth_ros.atomic import replacing
from mono_depth_ros.engines import open_engine
from mono_depth_ros.float16 import to_float16
from mono_depth_ros.json_file import write_json
from mono_depth_ros.model import METADATA_KEY
from mono_depth_ros.parity import TOLERANCES, Agreement, Image, agreement, resized
from training.bytes_to_metres import BytesToMetres, document, focal_at, load_bytes_to_metres
from training.calibrate import scale_correction
from training.checkpoint import CheckpointInfo, save_weights
from training.data.frame import Frame
from training.data.sources import open_frames
from training.validate import IMAGES, read_images

OPSET = 18
WEIGHTS = ("float32", "float16")
# Between PyTorch and ONNX Runtime in float32 only the order of additions differs.
MAX_REL = 1e-3
MIN_SIDE = 32


def synthetic_images(height: int, width: int, seed: int = 0) -> Iterator[Image]:
    """A smooth and a noisy image, HxWx3 uint8."""
    shape = (height, width, 3)
    yield np.linspace(0, 255, math.prod(shape)).reshape(shape).astype(np.uint8)
    yield np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def agreement_with_pytorch(path: Path, module: BytesToMetres, images: Iterable[Image]) -> Agreement:
    """Compares an exported file in ONNX Runtime with PyTorch in float32 on HxWx3 uint8 images.

    Raises:
        ValueError: nothing can be compared.
        EngineError: ONNX Runtime refuses the file.
    """
    engine = open_engine(path, "onnx")

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for image in (resized(image, engine.input_spec.shape[1:3]) for image in images):
            with torch.inference_mode():
                yield engine.infer(image), module(torch.from_numpy(image)[None])[0].numpy()

    try:
        return agreement(pairs())
    finally:
        engine.close()


def to_onnx(module: BytesToMetres, size: tuple[int, int], path: Path) -> onnx.ModelProto:
    """The float32 graph of `module` at a size (height, width); `path` is written on the way."""
    # PyTorch misses torchvision, which is not needed, and deprecates what it calls itself.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            module,
            (torch.zeros(1, *size, 3, dtype=torch.uint8),),
            path,
            input_names=["image"],
            output_names=["depth"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    proto = onnx.load(path)
    # The exporter records where in its own source every node came from; nobody needs that.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return proto


def export_network(
    module: BytesToMetres,
    info: CheckpointInfo,
    size: tuple[int, int],
    out: Path,
    precision: str = "float32",
    metrics: dict[str, Any] | None = None,
    images: Iterable[Image] | None = None,
    weights: Path | None = None,
) -> tuple[Agreement, dict[str, Any]]:
    """Writes a network to `out`, atomically, once the file is checked against PyTorch.

    Args:
        module: on the CPU, in evaluation mode.
        info: what its checkpoint says of it.
        size: input height and width.
        precision: of `WEIGHTS`.
        metrics: {protocol: {metric: value}} for the metadata.
        images: HxWx3 uint8 to check on, of any size; None takes `synthetic_images`.
        weights: checkpoint to write, too: the weights alone, with the correction.

    Returns:
        How far the file is from PyTorch, and the metadata document.

    Raises:
        ValueError: the size cannot be, or the file is too far from PyTorch.
    """
    if min(size) < MIN_SIDE or size[0] % 2 or size[1] % 2:
        raise ValueError(f"--size {size[0]} {size[1]}: both must be even, and at least {MIN_SIDE}")
    out.parent.mkdir(parents=True, exist_ok=True)
    info = replace(info, scale_correction=module.scale)
    content = document(info, size, precision, metrics)
    with replacing(out) as temporary:
        proto = to_onnx(module, size, temporary)
        if precision == "float16":
            proto = to_float16(proto)
        onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(content)})
        proto.doc_string = "Metric depth from one RGB image; see metadata_props"
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, temporary)
        result = agreement_with_pytorch(temporary, module, images or synthetic_images(*size))
        faults = result.faults(*TOLERANCES[precision])
        if precision == "float32" and result.max_rel > MAX_REL:
            faults.append(f"largest difference {result.max_rel:.2e} is above {MAX_REL:g}")
        if faults:
            raise ValueError(f"{out}: not written, it is not what PyTorch is: {'; '.join(faults)}")
    if weights is not None:
        save_weights(module.network, info, weights)
    return result, content


def export(
    checkpoint: Path,
    out: Path,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    metrics: dict[str, Any] | None = None,
    calibration: Sequence[Frame] | None = None,
    images: Iterable[Image] | None = None,
    weights: Path | None = None,
) -> tuple[Agreement, dict[str, Any]]:
    """Exports the network of a checkpoint; what is not said here is as in `export_network`.

    Args:
        size: None takes the size of the last training stage.
        calibration: whole training frames to correct the scale with; None leaves it.

    Raises:
        ValueError: the checkpoint or a frame cannot be read; or as `export_network`.
    """
    module, info = load_bytes_to_metres(checkpoint)
    size = size or (info.height, info.width)
    if calibration is not None:
        focal = math.sqrt(math.prod(focal_at(info, size[1])))
        module.scale = 1.0
        module.scale = scale_correction(module, calibration, size, focal)
    return export_network(module, info, size, out, precision, metrics, images, weights)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m training.export runs/compact/last.ckpt --out compact.onnx --images data/nyu\n"
        "  python -m training.export runs/compact/last.ckpt --out compact16.onnx \\\n"
        "    --precision float16 --calibrate data/nyu --metrics metrics.json",
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", required=True, type=Path, help="the ONNX file")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--precision",
        default="float32",
        choices=WEIGHTS,
        help="of weights and activations; input stays uint8, output float32 (default: float32)",
    )
    parser.add_argument(
        "--metrics", type=Path, help="JSON that training.evaluate wrote, to carry in the metadata"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="DATA",
        help="correct the mean scale on the training split of this data set",
    )
    parser.add_argument(
        "--images",
        type=Path,
        help=f"check against PyTorch on up to {IMAGES} images of this folder or data set"
        " (default: on a smooth and a noisy picture)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="also write a checkpoint of the corrected weights alone, to fine-tune from",
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser.parse_args(argv)


def read_metrics(path: Path) -> dict[str, Any]:
    """The `metrics` of a JSON file that training.evaluate wrote.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        metrics = json.loads(path.read_text())["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result of training.evaluate --json ({error})") from None
    if not isinstance(metrics, dict):
        raise ValueError(f"{path}: not a result of training.evaluate --json")
    return metrics


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        result, content = export(
            args.checkpoint,
            args.out,
            tuple(args.size) if args.size else None,
            args.precision,
            read_metrics(args.metrics) if args.metrics else None,
            open_frames(args.calibrate, "train") if args.calibrate else None,
            read_images(args.images, IMAGES) if args.images else None,
            args.weights,
        )
        megabytes = round(args.out.stat().st_size / 1e6, 1)
        if args.json:
            summary = {"out": str(args.out), "megabytes": megabytes, "metadata": content}
            write_json(args.json, summary | {"agreement_with_pytorch": asdict(result)})
    except (ValueError, RuntimeError, OSError) as error:
        print(f"training.export: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {megabytes} MB, {args.precision}; against PyTorch: {result}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
