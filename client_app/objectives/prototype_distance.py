"""FedProto's regulariser: features near the global prototypes (Tan et al., AAAI 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bmsfed_app.models import Output
from bmsfed_app.prototypes import ClassMeans, enhancement_loss
from client_app.objectives.base import OBJECTIVES, Objective


@OBJECTIVES.register("prototype_distance")
@dataclass
class PrototypeDistance(Objective):
    """``F_k = CE + lam sum_m mean_i ||z_m,i - c_m,y_i||^2 / D`` with global prototypes c.

    Every assigned modality counts. There is no term before there are global prototypes, and none
    for a sample whose class has none. The original exchanges prototypes alone and keeps models on
    the clients; here models are averaged too, as the BMSFed paper compares one global model.

    Parameters
    ----------
    lam : float
        λ, the weight of the term, >= 0; 0 is FedAvg's objective.
    distance : {"squared", "softmax"}
        The squared distance as above, or ``-log softmax_j(-||z - c_j||)[y]`` in its place (the
        BMSFed authors' published code).

    Source: https://arxiv.org/abs/2105.00243, Eq. 7 there.
    """

    lam: float
    distance: Literal["squared", "softmax"]

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        loss = super().loss(output, labels)
        if self.lam == 0:
            return loss
        measure = squared_distance if self.distance == "squared" else enhancement_loss
        known = self.context.global_prototypes
        for modality, z in output.features.items():
            if modality in known:
                own = output.of(modality, z), output.of(modality, labels)
                loss = loss + self.lam * measure(*own, known[modality])
        return loss


def squared_distance(features: Tensor, labels: Tensor, prototypes: ClassMeans) -> Tensor:
    """Mean over batch and width of ``(z - c_y)^2``; 0 for a sample whose class has none.

    Parameters
    ----------
    features : Tensor (B, D)
    labels : Tensor (B,), int64
    prototypes : ClassMeans
    """
    gaps = features - prototypes.means[labels]
    if not prototypes.covering:
        gaps = gaps[prototypes.present[labels]]
    return gaps.square().sum() / max(features.numel(), 1)
