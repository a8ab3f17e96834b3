"""Cross-entropy of the fused logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output
from client_app.objectives.base import LocalContext, Objective


@dataclass
class CrossEntropy(Objective):
    """``F_k = CE`` over the modalities assigned (Eq. 1)."""

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the batch's mean cross-entropy."""
        return F.cross_entropy(output.logits, labels)
