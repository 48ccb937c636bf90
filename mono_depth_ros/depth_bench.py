"""Measures networks: model x engine x precision x size, each in a process of its own.

Without arguments: the shipped network at its own size, in every engine and precision that makes
sense. Quote ratios from one run: absolute times move by tens of percent between runs and machines.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from mono_depth_ros.arithmetic import Cost, cost
from mono_depth_ros.engine_bench import TORCH, Job, bench_engine, run
from mono_depth_ros.engines import ENGINES
from mono_depth_ros.engines.cache import EngineCache, open_cache
from mono_depth_ros.engines.calibrated import calibration_needed, find_calibrated
from mono_depth_ros.input_size import resized
from mono_depth_ros.json_file import write_json
from mono_depth_ros.latency import MIN_CALLS
from mono_depth_ros.latency_plot import latency_figure, save_latency_plot
from mono_depth_ros.machine import machine
from mono_depth_ros.markdown_table import markdown_table
from mono_depth_ros.model import DepthModel, default_model, read_model
from mono_depth_ros.node_bench import bench_node
from mono_depth_ros.output_profiles import OUTPUTS
from mono_depth_ros.parity import agreement, parity_images
from mono_depth_ros.stage_bench import SIZES, bench_stages, room_picture

# What `auto` may choose, the slowest first, and what they are measured against.
RUNTIMES = (TORCH, *reversed([name for name in ENGINES if name != "auto"]))
SENSIBLE = {
    TORCH: ("float32",),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "tensorrt": ("float32", "float16", "int8"),
}
REFERENCE = ("onnx", "float32")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
IMAGES = 4
COMPARISONS = (
    "abs_rel",
    "delta1",
    "non_finite",
    "speedup",
    "speedup_over",
    "gflop_per_s",
    "gb_per_s",
)
NODE_S = 20.0
# Share of the cores in use before the measurement that is worth a warning.
BUSY = 0.3
EXAMPLES = """examples:
  depth_bench
  depth_bench --stages --node --json bench.json --plot latency.png
  depth_bench mine.onnx --engine torch openvino --precision float32 bfloat16 --size 240x320 480x640
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A network at one size.

    Attributes:
        name: of its file.
        float32, int8: the network as it is, and calibrated; None where it was not.
        checkpoint: what it was exported from; None where that is not known.
    """

    name: str
    float32: DepthModel
    int8: DepthModel | None
    checkpoint: Path | None

    @property
    def size(self) -> str:
        """Of the input, height x width."""
        return f"{self.float32.metadata.height}x{self.float32.metadata.width}"

    def cost(self) -> Cost | None:
        """The work of an inference; None where shapes are open."""
        try:
            return cost(onnx.load_model_from_string(self.float32.onnx))
        except ValueError:
            return None


def subjects(
    paths: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    cache: EngineCache,
    checkpoint: Path | None,
) -> Iterator[Subject]:
    """Every model at every size, or at its own where there are none.

    Raises:
        ModelError: a model cannot be read; ValueError: it cannot have this size.
    """
    for path in paths:
        model = read_model(path)
        int8 = find_calibrated(model, cache)
        beside = path.with_suffix(".ckpt")
        source = checkpoint or (beside if beside.is_file() else None)
        if not sizes:
            yield Subject(path.name, model, int8, source)
        for size in sizes:
            yield Subject(path.name, resized(model, *size), int8 and resized(int8, *size), source)


class Bench:
    """The rows of one network at one size.

    Args:
        subject: the network.
        folder: empty, for files of the runs.
        images: a folder of images or a video to compare answers on; None takes rendered rooms.
        repeat: timed calls a row.
        timeout_s: what each of a row's two processes may take.

    Raises:
        ValueError: there is no image, or one cannot be read.
    """

    def __init__(
        self, subject: Subject, folder: Path, images: Path | None, repeat: int, timeout_s: float
    ) -> None:
        self.subject, self._timeout_s = subject, timeout_s
        self._folder, self._repeat = folder, repeat
        metadata = subject.float32.metadata
        np.save(
            folder / "images.npy",
            np.stack(list(parity_images(images, IMAGES, (metadata.height, metadata.width)))),
        )
        for kind, model in (("float32", subject.float32), ("int8", subject.int8)):
            if model is not None:
                (folder / kind).mkdir()
                (folder / kind / subject.name).write_bytes(model.onnx)

    def _answers(self, engine: str, precision: str) -> Path:
        return self._folder / f"{engine}-{precision}.npy"

    def _job(self, engine: str, precision: str) -> Job:
        kind = "int8" if precision == "int8" else "float32"
        cache = self._folder / f"{engine}-{precision}"
        cache.mkdir(mode=0o700)
        return Job(
            model=str(self._folder / kind / self.subject.name),
            engine=engine,
            precision=precision,
            cache_dir=str(cache),
            images=str(self._folder / "images.npy"),
            repeat=self._repeat,
            checkpoint=str(self.subject.checkpoint) if self.subject.checkpoint else None,
            answers=str(self._answers(engine, precision)),
        )

    def row(self, engine: str, precision: str) -> Row:
        """Names of what is measured, and what `bench_engine` gives."""
        row: Row = {"model": self.subject.name, "size": self.subject.size}
        row |= {"engine": engine, "precision": precision}
        if precision == "int8" and self.subject.int8 is None:
            return {**row, "error": str(calibration_needed(self.subject.float32))}
        row |= bench_engine(self._job(engine, precision), self._timeout_s)
        if "error" in row:
            # Of names, the file is enough.
            reason = re.sub(rf"{re.escape(str(self._folder))}/\w+/", "", row["error"])
            row["error"] = reason.removeprefix(f"{engine}: ")
        return row

    def add_comparisons(self, rows: Sequence[Row]) -> None:
        """Adds to each row how far its answers are from those of `REFERENCE`, its speed over
        PyTorch where that was measured, else over `REFERENCE`, and its rate of work.

        abs_rel (None where no answer is finite), delta1, non_finite, all None where the reference
        fails; speedup, the ratio of the medians, and speedup_over, both None where there is nothing
        to compare with; gflop_per_s and gb_per_s, None where the network's work is not known. A row
        whose answers cannot be compared becomes one that failed.
        """
        expected = self._answers(*REFERENCE)
        if REFERENCE not in [(row["engine"], row["precision"]) for row in rows]:
            run(replace(self._job(*REFERENCE), repeat=0), self._timeout_s)
        good = [row for row in rows if "error" not in row]
        medians = {(row["engine"], row["precision"]): row["ms_p50"] for row in good}
        base = next((key for key in ((TORCH, "float32"), REFERENCE) if key in medians), None)
        work = self.subject.cost()
        for row in good:
            row |= dict.fromkeys(COMPARISONS)
            if expected.exists():
                answers = np.load(self._answers(row["engine"], row["precision"]))
                try:
                    result = agreement(zip(answers, np.load(expected), strict=True))
                except ValueError as error:
                    row["error"] = str(error)
                    continue
                # JSON has no infinity, which stands for an answer without any finite depth.
                row["abs_rel"] = result.abs_rel if math.isfinite(result.abs_rel) else None
                row["delta1"], row["non_finite"] = result.delta1, result.non_finite
            if base is not None:
                row["speedup"] = round(medians[base] / row["ms_p50"], 3)
                row["speedup_over"] = " ".join(base)
            if work is not None:
                moved = work.bytes_moved(BYTES[row["precision"]])
                row["gflop_per_s"] = round(work.flops / row["ms_p50"] / 1e6, 2)
                row["gb_per_s"] = round(moved / row["ms_p50"] / 1e6, 2)


def combinations(
    engines: Sequence[str] | None, precisions: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Engines with precisions: all of those that were both asked for, and else what is sensible."""
    return [
        (engine, precision)
        for engine in engines or RUNTIMES
        for precision in precisions or SENSIBLE[engine]
        if engines or precision in SENSIBLE[engine]
    ]


def heading(subject: Subject) -> str:
    """The network, and the work of an inference."""
    work = subject.cost()
    if work is None:
        return f"{subject.name}, {subject.size}"
    return (
        f"{subject.name}, {subject.size}: {work.flops / 1e9:.3g} GFLOP, in float32"
        f" {work.weights * 4 / 1e6:.3g} MB of weights and {work.activations * 4 / 1e6:.3g} MB of"
        " activations"
    )


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def engine_table(rows: Sequence[Row]) -> str:
    """Rows of one network at one size; beneath it, what could not be measured and why."""
    good = [row for row in rows if "error" not in row]
    base = next((row["speedup_over"] for row in good), None)
    # Beside the first: heading, key, format.
    columns = [
        ("load s", "load_s", ".3g"),
        ("cached s", "cached_s", ".3g"),
        ("first frame s", "first_frame_s", ".3g"),
        ("p50 ms", "ms_p50", ".4g"),
        ("p95 ms", "ms_p95", ".4g"),
        ("p99 ms", "ms_p99", ".4g"),
        ("frames/s", "frames_per_s", ".4g"),
        ("MB", "memory_mb", ".0f"),
        ("GPU MB", "gpu_mb", ".0f"),
        ("AbsRel", "abs_rel", ".1e"),
        ("delta1", "delta1", ".4f"),
        ("not finite", "non_finite", "d"),
        (f"x {base}", "speedup", ".2f"),
        ("GFLOP/s", "gflop_per_s", ".4g"),
        ("GB/s", "gb_per_s", ".3g"),
    ]
    shown = [c for c in columns if any(row[c[1]] is not None for row in good)]
    lines = []
    if good:
        header = ["engine", *(title for title, _, _ in shown)]
        cells = [
            [row["description"], *(_cell(row[key], form) for _, key, form in shown)] for row in good
        ]
        lines.append(markdown_table(header, cells))
    failed: dict[str, list[str]] = {}
    for row in rows:
        if "error" in row:
            failed.setdefault(row["error"], []).append(f"{row['engine']} {row['precision']}")
    lines += [f"- {', '.join(names)}: {reason}" for reason, names in failed.items()]
    return "\n".join(lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Rows of the stages and the node: times, then the rest."""
    times = [
        [f"{row['stage']}, {row['camera']}"]
        + [_cell(row.get(f"ms_{p}"), ".3g") for p in ("p50", "p95", "p99")]
        for row in rows
        if "unit" not in row
    ]
    values = [
        [f"{row['stage']}, {row['camera']}", f"{row['value']:g} {row['unit']}"]
        for row in rows
        if "unit" in row
    ]
    tables = [markdown_table(("stage", "p50 ms", "p95 ms", "p99 ms"), times)]
    return "\n\n".join(tables + ([markdown_table(("figure", ""), values)] if values else []))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH, such as 240x320")
    return int(match[1]), int(match[2])


def _calls(text: str) -> int:
    number = int(text)
    if number < MIN_CALLS:
        raise argparse.ArgumentTypeError(f"{number} calls are too few for p99; {MIN_CALLS} or more")
    return number


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="depth_bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, nargs="*", help="ONNX files; default: the one that ships"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        choices=RUNTIMES,
        help="default: all. torch is PyTorch, for models with a .ckpt beside them, in a checkout",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=tuple(BYTES),
        help="default: what makes sense in each engine",
    )
    parser.add_argument(
        "--size",
        nargs="+",
        type=_size,
        default=[],
        metavar="HxW",
        help="heights x widths of the input; default: the model's own",
    )
    parser.add_argument("--repeat", type=_calls, default=100, help="timed calls a row (100)")
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="S", help="of a row's process (900)"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images or video to compare answers on (default: rendered rooms)",
    )
    parser.add_argument("--checkpoint", type=Path, help="for torch: what the model came from")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="where build_engine left calibrated models (default: ~/.cache/mono_depth_ros)."
        " Every row has a cache of its own",
    )
    parser.add_argument("--stages", action="store_true", help="the steps around the network, too")
    parser.add_argument(
        "--node",
        action="store_true",
        help="the whole node over DDS, too: the virtual camera at 30 Hz, all outputs subscribed",
    )
    parser.add_argument(
        "--node-seconds", type=float, default=NODE_S, metavar="S", help=f"of each run ({NODE_S:g})"
    )
    parser.add_argument(
        "--cameras",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="numbers of cameras that the node serves, each a run (1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the latencies (needs matplotlib)"
    )
    args = parser.parse_args(argv)
    if args.checkpoint and len(args.model) > 1:
        parser.error("--checkpoint belongs to one model")
    return args


def bench_engines(args: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """All rows, and the tables for reading.

    Raises:
        ModelError, ValueError, EngineError: a model, image or cache cannot be read.
    """
    cache = open_cache(args.cache_dir)
    pairs = combinations(args.engine, args.precision)
    texts: list[str] = []
    rows: list[Row] = []
    # All of them first: what cannot be read is no reason to lose a measurement.
    networks = list(subjects(args.model, args.size, cache, args.checkpoint))
    with tqdm(total=len(networks) * len(pairs), unit="row") as bar:
        for subject in networks:
            with tempfile.TemporaryDirectory() as name:
                bench = Bench(subject, Path(name), args.images, args.repeat, args.timeout)
                found = []
                for engine, precision in pairs:
                    bar.set_description(f"{subject.name} {subject.size} {engine} {precision}")
                    found.append(bench.row(engine, precision))
                    bar.update()
                bench.add_comparisons(found)
            rows += found
            texts.append(f"{heading(subject)}\n\n{engine_table(found)}")
    return texts, rows


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 0 only if something was measured, and all that was asked for by
    name.
    """
    args = parse_args(argv)
    try:
        if args.plot is not None:
            latency_figure([])  # fails now where it must, not after the measurement
        args.model = args.model or [default_model()]
        pictures = [room_picture(*size) for size in SIZES] if args.stages else []
        about = machine()
        texts, rows = bench_engines(args)
        print(f"{about['cpu']}, {about['cores']} cores", *texts, sep="\n\n")
        result: dict[str, Any] = {"machine": about, "rows": rows, "stages": []}
        if args.stages:
            for picture in pictures:
                result["stages"] += bench_stages(args.model[0], picture, args.repeat)
        if args.node:
            for cameras in args.cameras:
                # Of one camera everything; of several what a robot uses, or nothing is left to see.
                outputs = tuple(OUTPUTS) if cameras == 1 else ("depth", "depth_info", "points")
                result["stages"] += bench_node(
                    args.model[0], args.node_seconds, cameras=cameras, outputs=outputs
                )
        if result["stages"]:
            print(f"\n{stage_table(result['stages'])}")
        good = [row for row in rows if "error" not in row]
        if args.json is not None:
            write_json(args.json, result)
        if args.plot is not None:
            series = [
                (f"{row['model']} {row['size']}, {row['description']}", row["latencies_ms"])
                for row in good
            ]
            save_latency_plot(series, args.plot)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"depth_bench: {error}", file=sys.stderr)
        return 1
    if about["load_1min"] > BUSY * about["cores"]:
        print(
            f"depth_bench: other programs kept the machine busy (load {about['load_1min']:.1f}"
            " before the first row); figures from an idle one are better",
            file=sys.stderr,
        )
    return 1 if not good or (args.engine and len(good) < len(rows)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
