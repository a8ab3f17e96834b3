"""Cross-entropy plus modal enhancement of the weak modality (Eqs. 7-9, 19)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.methods.bmsfed import EnhancementSettings
from bmsfed_app.models import Output
from bmsfed_app.prototypes import (
    ClassMeans,
    coefficient,
    enhancement_loss,
    log_probabilities,
    score,
)
from client_app.objectives.base import (
    OBJECTIVES,
    Needs,
    Objective,
    cross_entropy,
)


@dataclass(frozen=True)
class Target:
    """What a batch enhances.

    Attributes
    ----------
    weak : dict
        1 for the modality to enhance, 0 for others, by modality; empty where there is none.
    coefficient : float or Tensor
        Of the enhancement loss.
    """

    weak: Mapping[str, float | Tensor]
    coefficient: float | Tensor

    @property
    def enhances(self) -> bool:
        """Whether there may be an enhancement loss."""
        return isinstance(self.coefficient, Tensor) or self.coefficient > 0


#: The target of a batch that enhances nothing.
NOTHING = Target({}, 0.0)


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

    packs: ClassVar[bool] = True

    coefficient: Literal["clipped", "constant"]
    coefficient_value: float
    uni_enhancement: Literal["weak", "always"]
    head_weight: float
    prototypes: Literal["global", "local"] = "global"

    @classmethod
    def by_default(cls) -> Self:
        """Return it as BMSFed has it where nothing is set."""
        _, settings = EnhancementSettings.model_validate({}).objective()
        return cls(**settings)

    @property
    def needs(self) -> Needs:
        """Own prototypes find the weak modality; distances to them need them always."""
        return Needs.FEATURES if self.prototypes == "local" else Needs.LOCAL_PROTOTYPES

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        local = self.prototypes == "local"
        known = self.context.local_prototypes if local else self.context.global_prototypes
        target = self.target(output.features, labels, output.present)
        loss = self.fused_loss(output, labels)
        return self._enhanced(loss, output, labels, target, known, enhancement_loss)

    def fused_loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the loss of all modalities together (a scalar): cross-entropy."""
        return F.cross_entropy(output.logits, labels)

    def _enhanced(
        self,
        loss: Tensor,
        output: Output,
        labels: Tensor,
        target: Target,
        prototypes: Mapping[str, ClassMeans],
        measure: Callable[[Tensor, Tensor, ClassMeans], Tensor],
    ) -> Tensor:
        """Add the target's terms to a loss; ``measure`` is the enhancement loss of a modality."""
        for modality, features in output.features.items():
            if modality not in target.weak:
                continue
            z, own_labels = output.of(modality, features), output.of(modality, labels)
            if target.enhances and modality in prototypes:
                coef = target.weak[modality] * target.coefficient
                loss = loss + coef * measure(z, own_labels, prototypes[modality])
            if self.head_weight > 0 and len(output.features) > 1:
                own = cross_entropy(self.network.head({modality: z}), own_labels)
                loss = loss + target.weak[modality] * self.head_weight * own
        return loss

    def target(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        present: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Target:
        """Return what to enhance in a batch.

        Of several modalities the weak one is known to the device alone, which nobody waits for:
        each gets its terms, and 0 as their factor where it is not the weak one.

        Parameters
        ----------
        features : mapping
            Features (B, D) by modality.
        labels : Tensor (B,), int64
        present : mapping
            By modality that samples lack: which have it, (B,) bool.
        """
        if len(features) == 1:
            [modality] = features
            orders = self.context.orders
            if modality != orders.weak and self.uni_enhancement == "weak":
                return NOTHING
            return Target({modality: 1.0}, self.weigh(orders.ratio))  # Eq. 9
        return self._weak_of(features, self.batch_ratios(features, labels, present))

    def _weak_of(self, features: Mapping[str, Tensor], ratios: Tensor) -> Target:
        is_weak = torch.arange(len(ratios), device=ratios.device) == ratios.argmax()
        weak = dict(zip(features, is_weak.float(), strict=True))
        if self.coefficient == "constant":
            return Target(weak, self.coefficient_value)
        return Target(weak, (ratios.max() - 1.0).clamp(0.0, 1.0).float())  # Eqs. 8, 19

    def batch_ratios(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        present: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """Imbalance ratios (a,) on a batch, float64, from local prototypes (Eqs. 16, 17).

        Where samples lack modalities, scores are means over those that have it, so that they can be
        compared; a modality that none has is not imbalanced: its ratio is 1.
        """
        local = self.context.local_prototypes
        if not present:
            return _ratios(features, labels, local)
        masks = {m: present.get(m, torch.ones_like(labels, dtype=torch.bool)) for m in features}
        sums = [score(z[masks[m]], labels[masks[m]], local[m]) for m, z in features.items()]
        counts = torch.stack([mask.sum() for mask in masks.values()])
        means = torch.stack(sums) / counts.clamp(min=1)
        best = means.masked_fill(counts == 0, 0.0).max()
        return best / means.where(counts > 0, best)

    def weigh(self, ratio: float) -> float:
        """Return the coefficient of the enhancement loss at a ratio (Eq. 19)."""
        return coefficient(ratio, self.coefficient, self.coefficient_value)

    # --- several clients at once ------------------------------------------------------------

    def pack(self) -> dict[str, Tensor]:
        """Return prototypes and presence of classes by modality, or the one coefficient."""
        context, modalities = self.context, self.network.modalities
        local = self.prototypes == "local"
        known = context.local_prototypes if local else context.global_prototypes
        own: dict[str, Tensor] = {}
        for m in modalities:
            own |= _packed_means(f"target.{m}", known.get(m) or self._no_means(m))
            if len(modalities) > 1:
                own |= _packed_means(f"own.{m}", context.local_prototypes[m])
        if len(modalities) == 1:
            enhanced = modalities[0] == context.orders.weak or self.uni_enhancement == "always"
            coef = self.weigh(context.orders.ratio) if enhanced else 0.0
            own["coefficient"] = torch.tensor(coef, device=self._device)
        return own

    def packed_loss(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return the batch's loss."""
        features = output.features
        if len(features) == 1:
            target = Target(dict.fromkeys(features, 1.0), own["coefficient"])
        else:
            local = {m: _means(f"own.{m}", own) for m in features}
            target = self._weak_of(features, _ratios(features, labels, local))
        known = {m: _means(f"target.{m}", own) for m in features}
        loss = self.fused_loss(output, labels)
        return self._enhanced(loss, output, labels, target, known, _masked_enhancement)

    def _no_means(self, modality: str) -> ClassMeans:
        classes = self.network.spec.num_classes
        means = torch.zeros(classes, self.network.spec.width(modality), device=self._device)
        return ClassMeans(means, torch.zeros(classes, dtype=torch.int64, device=self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def _packed_means(name: str, prototypes: ClassMeans) -> dict[str, Tensor]:
    return {f"{name}.means": prototypes.means, f"{name}.counts": prototypes.counts}


def _means(name: str, own: Mapping[str, Tensor]) -> ClassMeans:
    return ClassMeans(own[f"{name}.means"], own[f"{name}.counts"])


def _ratios(
    features: Mapping[str, Tensor], labels: Tensor, prototypes: Mapping[str, ClassMeans]
) -> Tensor:
    """Imbalance ratios (a,), float64."""
    scores = torch.stack([score(z, labels, prototypes[m]) for m, z in features.items()])
    return scores.max() / scores


def _masked_enhancement(features: Tensor, labels: Tensor, prototypes: ClassMeans) -> Tensor:
    """Return :func:`~bmsfed_app.prototypes.enhancement_loss` without looking into tensors."""
    usable = prototypes.present[labels]
    log_p = log_probabilities(features, prototypes)
    true_class = torch.where(usable, -log_p.gather(1, labels[:, None]).squeeze(1), 0.0)
    return true_class.sum() / usable.sum().clamp(min=1)
