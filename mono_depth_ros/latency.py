"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# Fewer say nothing of the slowest per cent.
MIN_CALLS = 50
# Uncounted: clocks rise, caches fill, threads wake.
_WARM_UP_CALLS, _WARM_UP_S = 5, 0.3


def time_calls(call: Callable[[], object], repeat: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each of `repeat` calls, one after another, after some uncounted ones."""
    warm = time.perf_counter() + _WARM_UP_S
    calls = 0
    while calls < _WARM_UP_CALLS or time.perf_counter() < warm:
        call()
        calls += 1
    times = np.empty(repeat)
    for i in range(repeat):
        started = time.perf_counter()
        call()
        times[i] = time.perf_counter() - started
    return times * 1e3


def percentiles(times_ms: npt.NDArray[np.float64]) -> dict[str, float]:
    """Median, 95th and 99th percentile of times in milliseconds, linearly interpolated."""
    values = np.percentile(times_ms, (50, 95, 99))
    return {f"ms_p{p}": round(float(v), 3) for p, v in zip((50, 95, 99), values, strict=True)}
