"""Exponential moving average of weights and batch-norm statistics over optimiser steps."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class WarmAveraging(WeightAveraging):
    """Lightning's averaging, with a decay that grows to `decay`: after n steps it averages over no
    more than about n / 9 of them, so that short runs are not held back by their start.

    Validation and checkpoints see the average.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__(multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        n = int(steps)
        weight = 1 - min(self.decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, weight)
        else:
            torch._foreach_copy_(averages, current)
