"""A picture of latencies: for each row, the share of calls that took no longer than a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mono_depth_ros.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Name and milliseconds of each call.
Series = tuple[str, Sequence[float]]


def latency_figure(rows: Sequence[Series]) -> Figure:
    """The empirical distribution of each row; time is on a logarithmic axis.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError(
            f"a plot needs matplotlib ({error}); pip install -r requirements/bench.txt"
        ) from None
    # A figure without pyplot draws with Agg and opens no window.
    figure = Figure(figsize=(9, 3.5 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, times in rows:
        axes.ecdf(times, label=f"{name}: {np.median(times):.3g} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of calls")
    axes.grid(which="both", alpha=0.3)
    if rows:
        figure.legend(loc="outside lower center", fontsize="small")
    return figure


def save_latency_plot(rows: Sequence[Series], path: Path) -> None:
    """Writes `latency_figure` in the format of the suffix of `path`.

    Raises:
        RuntimeError: matplotlib is not installed.
        ValueError: it cannot write this format.
        OSError: the file cannot be written.
    """
    figure = latency_figure(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
