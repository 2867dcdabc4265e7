"""What the loops of both stages share: optimiser, schedule, one careful step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Optimisation:
    """AdamW with a linear warm-up, a linear decay to zero and a bound on the gradient's norm.

    Args:
        parameters: What learns.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        warmup: Share of the steps over which the rate rises.
        clip: Largest norm of the gradient.
        steps: Number of steps in all.
    """

    parameters: Iterable[nn.Parameter]
    lr: float
    weight_decay: float
    warmup: float
    clip: float
    steps: int

    def __post_init__(self) -> None:
        self._parameters = list(self.parameters)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=self.lr, weight_decay=self.weight_decay)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the loss; weights that the loss does not touch stay as they are."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self.clip)
        self._optimizer.step()
        self._schedule.step()

    def _rate(self, step: int) -> float:
        rise = max(1, round(self.warmup * self.steps))
        return min((step + 1) / rise, max(0.0, (self.steps - step) / max(1, self.steps - rise)))
