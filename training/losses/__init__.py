"""Training losses, each for networks that predict one kind of target (`training.targets`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.article import article_loss
from training.losses.log_depth import log_depth_loss
from training.losses.paper import paper_loss


@dataclass(frozen=True)
class Loss:
    """A loss with its parts.

    Attributes:
        name: as configurations and checkpoints say it.
        target: name of the `Target` in whose space it compares.
        function: takes prediction, target and mask, float32 and finite; returns the parts and their
            weighted sum `total`.
    """

    name: str
    target: str
    function: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]

    def __call__(self, pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """All parts and `total`, scalars, computed in float32.

        Under autocast, too: no loss uses an operation that it would do in half precision.

        Args:
            pred: Nx1xhxw of any floating type, in the target's space.
            target: Nx1xhxw; outside the mask it may be anything, NaN too.
            mask: Nx1xhxw, 1 valid, 0 invalid.
        """
        target = torch.where(mask > 0, target, 0).float()
        return self.function(pred.float(), target, mask.float())


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("log", "log", log_depth_loss),
        Loss("paper", "reciprocal", paper_loss),
        Loss("article", "normalised", article_loss),
    )
}
