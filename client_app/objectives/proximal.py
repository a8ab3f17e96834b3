"""FedProx's proximal term (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output
from client_app.data import LocalData
from client_app.objectives.base import LocalContext, Objective


@dataclass
class Proximal(Objective):
    """``F_k = CE + (mu/2) ||w - w_t||^2`` over the parameters being trained.

    Unstable from lr · mu = 2 on (plain SGD). Nothing is kept and nothing more travels.

    Parameters
    ----------
    mu : float
        Weight of the term, >= 0; 0 is FedAvg's objective.
    """

    mu: float = 1.0
    received: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def on_start(self, network: MultiModalNetwork, data: LocalData, context: LocalContext) -> None:
        self.received = [p.detach().clone() for p in network.parameters()]

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the batch's loss."""
        loss = F.cross_entropy(output.logits, labels)
        if self.mu == 0:
            return loss
        pairs = zip(network.parameters(), self.received, strict=True)
        drift = torch.cat([(w - w_t).reshape(-1) for w, w_t in pairs])
        return loss + self.mu / 2 * drift.square().sum()
