"""PMR: prototypical modal rebalance on local prototypes (Fan et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from client_app.data import LocalData
from client_app.features import extract_features, local_prototypes
from client_app.objectives.base import OBJECTIVES, Needs
from client_app.objectives.modal_enhancement import NOTHING, ModalEnhancement, Target


@OBJECTIVES.register("pmr")
@dataclass
class PrototypicalModalRebalance(ModalEnhancement):
    """``F_k = CE + coef(rho) ME_w`` with the client's *own* prototypes; w is the batch's weakest.

    Prototypes come from all the client's training data, at the received model and anew after each
    local epoch. The coefficient is Eq. 19's ``clip(rho - 1, 0, 1)``, or a constant as in both
    published codes; no entropy regulariser. One modality alone, or a round past the first
    ``until``, is plain cross-entropy. Nothing is kept, nothing more travels; costs a forward pass
    over the data per epoch.

    Parameters
    ----------
    coefficient, coefficient_value
        See :class:`ModalEnhancement`.
    until : float
        Share of the rounds in which to rebalance.

    Source: https://arxiv.org/abs/2211.07089.
    """

    uni_enhancement: Literal["weak", "always"] = field(default="weak", init=False)
    head_weight: float = field(default=0.0, init=False)
    prototypes: Literal["global", "local"] = field(default="local", init=False)
    until: float = field(kw_only=True)

    @property
    def needs(self) -> Needs:
        """Prototypes are made here, and only while they are needed."""
        return Needs.NOTHING

    def on_epoch(self, data: LocalData, epoch: int) -> None:
        if len(self.network.modalities) > 1 and self.context.settings.progress < self.until:
            self.context.local_prototypes = local_prototypes(
                extract_features(self.network, data),
                data.labels,
                data.num_classes,
                data.gaps(self.network.modalities),
            )

    def target(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        present: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Target:
        """Return the batch's weakest modality and its coefficient; nothing where all is plain."""
        if len(features) < 2 or self.context.settings.progress >= self.until:
            return NOTHING
        return super().target(features, labels, present)
