"""Cross-entropy plus modal enhancement of the weak modality (Eqs. 7-9, 19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output
from bmsfed_app.prototypes import coefficient, enhancement_loss, score
from client_app.objectives.base import LocalContext, Objective
from strategies import imbalance_ratios


@dataclass
class ModalEnhancement(Objective):
    """``F_k = CE + coef(rho) * ME(weak)``.

    Several modalities (Eq. 8): the weak one and its ratio come from the batch's scores against
    local prototypes (Eqs. 16, 17). One modality m (Eq. 9): enhanced if m is the globally weak
    one, with the client's last known ratio.

    Parameters
    ----------
    coefficient : {"clipped", "constant"}
        ``clip(rho - 1, 0, 1)`` (Eq. 19), or ``coefficient_value`` whatever the ratio.
    coefficient_value : float
        The constant coefficient, >= 0.
    uni_enhancement : {"weak", "always"}
        Whether a client that trains one modality is enhanced only if it is the weak one.
    head_weight : float
        Weight of a cross-entropy through the weak modality's own columns of the head, >= 0.
    prototypes : {"global", "local"}
        Distances to the server's prototypes (Eq. 7), or to the client's own ("BMSFed-local").
    """

    needs_local_prototypes: ClassVar[bool] = True  # type: ignore[misc]

    coefficient: Literal["clipped", "constant"] = "clipped"
    coefficient_value: float = 1.0
    uni_enhancement: Literal["weak", "always"] = "weak"
    head_weight: float = 0.0
    prototypes: Literal["global", "local"] = "global"

    @property
    def needs_features(self) -> bool:  # type: ignore[override]
        """Own prototypes are needed whatever is assigned."""
        return self.prototypes == "local"

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the batch's loss."""
        loss = F.cross_entropy(output.logits, labels)
        target = self.target(output, labels, context)
        if target is None:
            return loss
        weak, coef = target
        z = output.features[weak]
        local = self.prototypes == "local"
        prototypes = context.local_prototypes if local else context.global_prototypes
        if coef > 0 and weak in prototypes:
            loss = loss + coef * enhancement_loss(z, labels, prototypes[weak])
        if self.head_weight > 0 and len(output.features) > 1:
            loss = loss + self.head_weight * F.cross_entropy(network.head({weak: z}), labels)
        return loss

    def target(
        self, output: Output, labels: Tensor, context: LocalContext
    ) -> tuple[str, float] | None:
        """Return the modality to enhance and its coefficient, or None."""
        if len(output.features) == 1:
            [modality] = output.features
            if modality != context.weak and self.uni_enhancement == "weak":
                return None
            return modality, self.weigh(context.ratio)  # Eq. 9
        ratios = self.batch_ratios(output.features, labels, context)
        weak = max(ratios, key=lambda m: ratios[m])
        return weak, self.weigh(ratios[weak])  # Eq. 8

    def batch_ratios(
        self, features: Mapping[str, Tensor], labels: Tensor, context: LocalContext
    ) -> dict[str, float]:
        """Imbalance ratio of every modality on the batch, from local prototypes (Eqs. 16, 17)."""
        scores = {m: score(z, labels, context.local_prototypes[m]) for m, z in features.items()}
        return imbalance_ratios(scores)

    def weigh(self, ratio: float) -> float:
        """Return the coefficient of the enhancement loss at a ratio (Eq. 19)."""
        return coefficient(ratio, self.coefficient, self.coefficient_value)
