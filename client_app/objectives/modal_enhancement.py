"""Cross-entropy plus modal enhancement of the weak modality (Eqs. 7-9, 19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.methods.bmsfed import EnhancementSettings
from bmsfed_app.models import Output
from bmsfed_app.prototypes import coefficient, enhancement_loss, score
from client_app.objectives.base import OBJECTIVES, Needs, Objective
from strategies import imbalance_ratios


@OBJECTIVES.register("modal_enhancement")
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

    coefficient: Literal["clipped", "constant"]
    coefficient_value: float
    uni_enhancement: Literal["weak", "always"]
    head_weight: float
    prototypes: Literal["global", "local"] = "global"

    @classmethod
    def by_default(cls) -> Self:
        """Return it as BMSFed has it where nothing is set."""
        return cls(**EnhancementSettings.model_validate({}).model_dump(exclude={"head_columns"}))

    @property
    def needs(self) -> Needs:
        """Own prototypes find the weak modality; distances to them need them always."""
        return Needs.FEATURES if self.prototypes == "local" else Needs.LOCAL_PROTOTYPES

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        loss, context = super().loss(output, labels), self.context
        target = self.target(output, labels)
        if target is None:
            return loss
        weak, coef = target
        z = output.features[weak]
        local = self.prototypes == "local"
        prototypes = context.local_prototypes if local else context.global_prototypes
        if coef > 0 and weak in prototypes:
            loss = loss + coef * enhancement_loss(z, labels, prototypes[weak])
        if self.head_weight > 0 and len(output.features) > 1:
            loss = loss + self.head_weight * F.cross_entropy(self.network.head({weak: z}), labels)
        return loss

    def target(self, output: Output, labels: Tensor) -> tuple[str, float] | None:
        """Return the modality to enhance and its coefficient, or None."""
        if len(output.features) == 1:
            [modality] = output.features
            orders = self.context.orders
            if modality != orders.weak and self.uni_enhancement == "weak":
                return None
            return modality, self.weigh(orders.ratio)  # Eq. 9
        ratios = self.batch_ratios(output.features, labels)
        weak = max(ratios, key=lambda m: ratios[m])
        return weak, self.weigh(ratios[weak])  # Eq. 8

    def batch_ratios(self, features: Mapping[str, Tensor], labels: Tensor) -> dict[str, float]:
        """Imbalance ratio of every modality on the batch, from local prototypes (Eqs. 16, 17)."""
        own = self.context.local_prototypes
        return imbalance_ratios({m: score(z, labels, own[m]) for m, z in features.items()})

    def weigh(self, ratio: float) -> float:
        """Return the coefficient of the enhancement loss at a ratio (Eq. 19)."""
        return coefficient(ratio, self.coefficient, self.coefficient_value)
