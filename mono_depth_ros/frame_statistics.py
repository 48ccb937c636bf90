"""Counters and latencies of the node over its last frames."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

WINDOW = 300


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
    dropped: int = 0
    failed: int = 0
    _timings: deque[FrameTiming] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_received(self, dropped_older: bool) -> None:
        with self._lock:
            self.received += 1
            self.dropped += dropped_older

    def on_failed(self) -> None:
        with self._lock:
            self.failed += 1

    def on_published(self, timing: FrameTiming) -> None:
        with self._lock:
            self.published += 1
            self._timings.append(timing)

    def seconds_since_publish(self, now: float) -> float | None:
        """None before the first frame."""
        with self._lock:
            return now - self._timings[-1].published if self._timings else None

    def summary(self) -> dict[str, float]:
        """Counts, `rate_hz`, and percentiles in milliseconds; no percentiles before a frame."""
        with self._lock:
            timings = list(self._timings)
            result: dict[str, float] = {
                "frames_in": self.received,
                "frames_out": self.published,
                "frames_dropped": self.dropped,
                "frames_failed": self.failed,
            }
        if len(timings) > 1:
            span = timings[-1].published - timings[0].published
            result["rate_hz"] = (len(timings) - 1) / span if span > 0 else 0.0
        if timings:
            latency = np.array([t.latency_ms for t in timings])
            engine = np.array([t.engine_ms for t in timings])
            result["latency_ms_p50"] = float(np.median(latency))
            result["latency_ms_p95"] = float(np.percentile(latency, 95))
            result["engine_ms_p50"] = float(np.median(engine))
            result["overhead_ms_p50"] = float(np.median(latency - engine))
            result["invalid_share"] = timings[-1].invalid_share
        return result
