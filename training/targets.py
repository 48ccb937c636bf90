"""What a network predicts in place of metres, and the way back.

`log`: ln d. Errors are relative, as in the usual metrics.
`reciprocal`: 10 / d, "High Quality Monocular Depth Estimation via Transfer Learning" (Alhashim &
Wonka, arXiv 1812.11941, section 3.2), which weighs near things more; between 1 (10 m) and 100.
`normalised`: d / 10 m, between 0 and 1, as in the article that this project is named after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_DEPTH_M = 10.0
# The range that DenseDepth's evaluation clips to; metres come from a network no nearer than this.
MIN_DEPTH_M = 0.1
MIN_LOG_RANGE, MAX_LOG_RANGE = 0.1, 20.0


@dataclass(frozen=True)
class Target:
    """A transform of depth.

    Attributes:
        name: as configurations and checkpoints say it.
        encode: metres (finite, positive) to what the network predicts.
        decode: back to metres, within the range that the target can say.
        initial: where an untrained network's output starts, so that training starts near the data.
        min_depth, max_depth: metres that `decode` is limited to.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    initial: float
    min_depth: float
    max_depth: float


def _decode_log(y: Tensor) -> Tensor:
    return y.exp().clamp(MIN_LOG_RANGE, MAX_LOG_RANGE)


def _encode_reciprocal(depth: Tensor) -> Tensor:
    return MAX_DEPTH_M / depth.clamp(MIN_DEPTH_M, MAX_DEPTH_M)


def _decode_reciprocal(y: Tensor) -> Tensor:
    return MAX_DEPTH_M / y.clamp(1.0, MAX_DEPTH_M / MIN_DEPTH_M)


def _encode_normalised(depth: Tensor) -> Tensor:
    return (depth / MAX_DEPTH_M).clamp(0.0, 1.0)


def _decode_normalised(y: Tensor) -> Tensor:
    return (y * MAX_DEPTH_M).clamp(MIN_DEPTH_M, MAX_DEPTH_M)


# 2.4 m, the median depth of indoor data sets.
TARGETS = {
    target.name: target
    for target in (
        Target("log", torch.log, _decode_log, 0.85, MIN_LOG_RANGE, MAX_LOG_RANGE),
        Target("reciprocal", _encode_reciprocal, _decode_reciprocal, 4.2, MIN_DEPTH_M, MAX_DEPTH_M),
        Target(
            "normalised", _encode_normalised, _decode_normalised, 0.24, MIN_DEPTH_M, MAX_DEPTH_M
        ),
    )
}
