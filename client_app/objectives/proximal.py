"""FedProx's proximal term (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bmsfed_app.models import Output
from client_app.data import LocalData
from client_app.objectives.base import OBJECTIVES, Objective


@OBJECTIVES.register("proximal")
@dataclass
class Proximal(Objective):
    """``F_k = CE + (mu/2) ||w - w_t||^2`` over the parameters being trained.

    Unstable from lr · mu = 2 on (plain SGD). Nothing is kept and nothing more travels.

    Parameters
    ----------
    mu : float
        Weight of the term, >= 0; 0 is FedAvg's objective.
    """

    mu: float
    trained: list[nn.Parameter] = field(default_factory=list, init=False, repr=False)
    received: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def on_start(self, data: LocalData) -> None:
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.received = [p.detach().clone() for p in self.trained]

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        loss = super().loss(output, labels)
        if self.mu == 0:
            return loss
        pairs = zip(self.trained, self.received, strict=True)
        drift = torch.cat([(w - w_t).reshape(-1) for w, w_t in pairs])
        return loss + self.mu / 2 * drift.square().sum()
