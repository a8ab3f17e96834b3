"""G-Blending: the joint loss and one per modality, blended (Wang et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output, UniModalHeads
from client_app.data import LocalData
from client_app.holdout import drawn_holdout
from client_app.objectives.base import OBJECTIVES, LocalContext, Needs, Objective, cross_entropy
from strategies import Arrays
from strategies.g_blending import JOINT


@OBJECTIVES.register("g_blending")
@dataclass
class GradientBlending(Objective):
    """``F_k = w_0 CE_joint + sum_m w_m CE_m`` over the modalities that are there.

    CE_m is of modality m's own head (head "blending"). The weights come from the server as
    ``method_state`` {"weights"}, are scaled to sum 1 over what is there, and are equal where all
    of those are 0. A loss of weight 0 is left out, so its head is not touched at all; the joint
    loss alone, with nothing held out, is FedAvg's objective bit for bit.

    A share of the client's samples, the same in every round, is held out of training. Measured are,
    by "joint" and modality, the mean losses (4,) on the samples trained on and held out, before
    and after local training (float64, 32 bytes each). A client with one sample holds out and
    measures nothing. It is weighted by all its samples, held out or not. CE_m and its losses are of
    samples that have m; where there are none on one of the sides, m is not measured. A modality's
    last sample is not held out.

    Parameters
    ----------
    holdout : float
        Share of the samples to hold out, in [0, 0.5]; see :func:`drawn_holdout`.
    measure : bool
        Whether the server wants the losses; if not, ``holdout`` may be 0.
    """

    holdout: float
    measure: bool
    head: UniModalHeads = field(init=False, repr=False)
    held_out: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool), init=False)
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), init=False)
    gaps: dict[str, Tensor] = field(default_factory=dict, init=False)
    before: dict[str, Tensor] = field(default_factory=dict, init=False)

    @property
    def needs(self) -> Needs:
        """Losses at the received and at the trained model come from their features."""
        return Needs.FEATURES | Needs.TRAINED_FEATURES if self.measure else Needs.NOTHING

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network's head, which must be one with heads of their own."""
        if not isinstance(network.head, UniModalHeads):
            raise ValueError(f"G-Blending needs the head 'blending', not '{network.spec.head}'")
        self.head = network.head
        return super().bind(network, context)

    def training_data(self, data: LocalData) -> LocalData:
        """Return all samples but those held out."""
        self.labels, self.gaps = data.labels, data.gaps(self.network.modalities)
        self.held_out = drawn_holdout(data, self.holdout, self.context)
        return replace(data, index=data.index[~self.held_out]) if self.held_out.any() else data

    def on_start(self, data: LocalData) -> None:
        if self._measures():
            self.before = self._losses(self.context.features)

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's blended loss."""
        weights = self.context.orders.method_state.get("weights", {})
        shares = blend(weights, tuple(output.features))
        terms = [share * self._loss(name, output, labels) for name, share in shares.items()]
        return torch.stack(terms).sum()

    def _loss(self, name: str, output: Output, labels: Tensor) -> Tensor:
        if name == JOINT:
            return F.cross_entropy(output.logits, labels)
        logits = self.head.own(name, output.of(name, output.features[name]))
        return cross_entropy(logits, output.of(name, labels))

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return each head's losses on both kinds of samples, before and after."""
        if not self._measures():
            return {}
        after = self._losses(features)
        return {n: torch.cat([x, after[n]]).cpu().numpy() for n, x in self.before.items()}

    def _measures(self) -> bool:
        return self.measure and len(self.held_out) > 1

    @torch.no_grad()
    def _losses(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean losses (2,) by head, float64, on the samples trained on and on those held out."""
        logits = {JOINT: self.head(features, self.gaps)}
        logits |= {m: self.head.own(m, z) for m, z in features.items()}
        found = {}
        for name, x in logits.items():
            losses = F.cross_entropy(x.double(), self.labels, reduction="none")
            has = self.gaps.get(name, torch.ones_like(self.held_out))
            sides = losses[has & ~self.held_out], losses[has & self.held_out]
            if all(map(len, sides)):
                found[name] = torch.stack([side.mean() for side in sides])
        return found


def blend(weights: Mapping[str, float], modalities: tuple[str, ...]) -> dict[str, float]:
    """Return the shares above 0 of the heads that are there; they sum to 1.

    >>> blend({"joint": 0.4, "a": 0.1, "b": 0.5}, ("a",))
    {'joint': 0.8, 'a': 0.2}
    """
    names = (JOINT, *modalities)
    total = sum(weights.get(n, 0.0) for n in names)
    if total == 0:
        return dict.fromkeys(names, 1.0 / len(names))
    return {n: weights[n] / total for n in names if weights.get(n, 0.0) > 0}
