"""Counters, rates and latencies of the node over its last frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

# Frames that percentiles are of.
WINDOW = 300
# Rates are means over this long.
RATE_S = 5.0


@dataclass(frozen=True)
class FrameTiming:
    """Of one published frame.

    Attributes:
        published: seconds, monotonic.
        latency_ms: acquisition stamp to the last publish.
        engine_ms: in the network.
        invalid_share: pixels without finite depth.
    """

    published: float
    latency_ms: float
    engine_ms: float
    invalid_share: float


@dataclass
class FrameStatistics:
    """Counts since activation, and timings of the last `WINDOW` published frames. Thread-safe."""

    received: int = 0
    published: int = 0
    skipped: int = 0
    failed: int = 0
    _arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _timings: deque[FrameTiming] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_received(self, now: float, replaced_older: bool) -> None:
        """An image came at `now`, seconds of the monotonic clock; maybe one that waited is lost."""
        with self._lock:
            self.received += 1
            self.skipped += replaced_older
            self._arrivals.append(now)

    def on_failed(self) -> None:
        """A frame could not be turned into depth."""
        with self._lock:
            self.failed += 1

    def on_published(self, timing: FrameTiming) -> None:
        """A frame was published."""
        with self._lock:
            self.published += 1
            self._timings.append(timing)

    def on_idle(self) -> None:
        """Nobody listens from here on: silence until the next image is nothing to wonder about."""
        with self._lock:
            self._arrivals.clear()

    def seconds_since_arrival(self, now: float) -> float | None:
        """None before the first image, and after `on_idle`."""
        with self._lock:
            return now - self._arrivals[-1] if self._arrivals else None

    def arrival_period(self) -> float | None:
        """Median seconds between images; None before the third."""
        with self._lock:
            arrivals = list(self._arrivals)
        return float(np.median(np.diff(arrivals))) if len(arrivals) > 2 else None

    def seconds_since_publish(self, now: float) -> float | None:
        """None before the first frame."""
        with self._lock:
            return now - self._timings[-1].published if self._timings else None

    def summary(self, now: float) -> dict[str, float]:
        """Counts, rates a second, and percentiles in milliseconds; no percentiles before a
        frame.

        Args:
            now: seconds, monotonic.
        """
        with self._lock:
            timings, arrivals = list(self._timings), list(self._arrivals)
            result: dict[str, float] = {
                "frames_in": self.received,
                "frames_out": self.published,
                "frames_skipped": self.skipped,
                "frames_failed": self.failed,
            }
        result["rate_in_hz"] = _rate(arrivals, now)
        result["rate_out_hz"] = _rate((t.published for t in timings), now)
        if timings:
            latency = np.array([t.latency_ms for t in timings])
            engine = np.array([t.engine_ms for t in timings])
            result["latency_ms_p50"] = float(np.median(latency))
            result["latency_ms_p95"] = float(np.percentile(latency, 95))
            result["engine_ms_p50"] = float(np.median(engine))
            result["overhead_ms_p50"] = float(np.median(latency - engine))
            result["overhead_ms_p95"] = float(np.percentile(latency - engine, 95))
            result["invalid_share"] = timings[-1].invalid_share
            result["seconds_since_publish"] = now - timings[-1].published
        return result


def _rate(times: Iterable[float], now: float) -> float:
    recent = [time for time in times if now - time <= RATE_S]
    span = recent[-1] - recent[0] if len(recent) > 1 else 0.0
    if span <= 0:
        return 0.0
    # Over a window that is not full, the first one only starts the clock; after the last one, the
    # silence counts.
    silence = max(now - recent[-1] - 2 * span / (len(recent) - 1), 0.0)
    return (len(recent) - 1) / (span + silence)
