"""PMR: prototypical modal rebalance on local prototypes (Fan et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output
from client_app.data import LocalData
from client_app.features import extract_features, local_prototypes
from client_app.objectives.base import LocalContext
from client_app.objectives.modal_enhancement import ModalEnhancement


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

    needs_local_prototypes: ClassVar[bool] = False  # type: ignore[misc]  # made here, when needed

    prototypes: Literal["global", "local"] = field(default="local", init=False)
    until: float = 0.4

    @property
    def needs_features(self) -> bool:  # type: ignore[override]
        """Prototypes are made here, and only while they are needed."""
        return False

    def on_epoch(
        self, network: MultiModalNetwork, data: LocalData, context: LocalContext, epoch: int
    ) -> None:
        if len(network.modalities) > 1 and context.progress < self.until:
            context.local_prototypes = local_prototypes(extract_features(network, data), data)

    def target(
        self, output: Output, labels: Tensor, context: LocalContext
    ) -> tuple[str, float] | None:
        """Return the batch's weakest modality and its coefficient; None where all is plain."""
        if len(output.features) < 2 or context.progress >= self.until:
            return None
        return super().target(output, labels, context)
