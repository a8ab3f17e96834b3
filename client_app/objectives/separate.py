"""Each modality's own cross-entropy, none of all together, and what each is worth (MFedMC)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from bmsfed_app.models import Head, MultiModalNetwork, Output
from client_app.data import LocalData
from client_app.features import there
from client_app.head_fitting import fit_head
from client_app.objectives.base import OBJECTIVES, LocalContext, Needs, Objective, cross_entropy
from strategies import Arrays
from strategies.mfedmc import OWN

#: Samples that a contribution is measured on at most, as in the official code.
_DRAWN = 50


@OBJECTIVES.register("separate")
@dataclass
class SeparateLosses(Objective):
    """``F_k = sum_m CE_m`` over the modalities assigned, CE_m of ``W_m z_m + b``.

    Sent, by modality, are ``contribution.<modality>`` (1,), see :func:`contribution`, and
    ``loss.<modality>`` (1,), the mean CE_m over the client's samples in eval mode: of the trained
    model, or of the received one from who only measures. With ``head_lr`` also ``own.head.…``: the
    head's columns and bias after one epoch of the same losses on the features of the received
    encoders, which the training itself does not see.

    Parameters
    ----------
    head_lr : float
        Learning rate of that epoch, >= 0; 0: there is none.
    """

    packs: ClassVar[bool] = True

    head_lr: float
    own: Arrays = field(default_factory=dict, init=False)

    @property
    def needs(self) -> Needs:
        """Features of the trained model; of the received one to measure it or to fit a head."""
        if self.context.orders.kind != "train":
            return Needs.FEATURES
        return Needs.TRAINED_FEATURES | (Needs.FEATURES if self.head_lr > 0 else Needs.NOTHING)

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network, whose head must have columns by modality."""
        if not network.head.additive:
            raise ValueError(f"MFedMC needs the head 'linear', not '{network.spec.head}'")
        return super().bind(network, context)

    def on_start(self, data: LocalData) -> None:
        """Fit a head of the client's own, aside."""
        if self.head_lr > 0:
            head = copy.deepcopy(self.network.head)

            def loss(
                features: dict[str, Tensor], labels: Tensor, present: dict[str, Tensor]
            ) -> Tensor:
                return separate_losses(head, features, labels, present).sum()

            fit_head(head, self.context.features, data, loss, self.context, self.head_lr)
            self.own = {
                f"{OWN}head.{n}": value.detach().cpu().numpy().copy()
                for n, value in head.named_parameters()
            }

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the sum of the batch's losses."""
        return self.uni_losses(output, labels).sum()

    def packed_loss(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return the sum of the batch's losses."""
        return self.uni_losses(output, labels).sum()

    def after_measuring(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return contributions and losses at the received model."""
        return self._measured(features, data)

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return contributions and losses at the trained model, and the client's own head."""
        return {**self._measured(features, data), **self.own}

    @torch.no_grad()
    def _measured(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        head = self.network.head
        gaps = data.gaps(features)
        losses = separate_losses(head, features, data.labels, gaps)
        order = torch.randperm(len(data), generator=self.context.generator("contribution"))
        drawn = order[:_DRAWN].to(data.labels.device)
        found = {f"loss.{m}": loss for m, loss in zip(features, losses, strict=True)}
        for m, part in head.parts({m: z[drawn] for m, z in features.items()}).items():
            shown = part[gaps[m][drawn]] if m in gaps else part
            found[f"contribution.{m}"] = contribution(shown)
        return {name: value.float().reshape(1).cpu().numpy() for name, value in found.items()}


def separate_losses(
    head: Head,
    features: Mapping[str, Tensor],
    labels: Tensor,
    gaps: Mapping[str, Tensor],
) -> Tensor:
    """Return the mean cross-entropies (a,) of each modality's features (n, D) alone.

    Over the samples that have it, (n,) bool in ``gaps`` where that is not all; 0 if none has.
    """
    rows = there(features, gaps)
    return torch.stack([cross_entropy(head({m: z[i]}), labels[i]) for m, (z, i) in rows.items()])


def contribution(part: Tensor) -> Tensor:
    """Return phi = sum_i sum_c |p_ic - mean_i p_ic|, of ``p_i = W_m z_m,i`` (n, K), as a scalar.

    Logits are the sum of such parts: with the mean for what is left out, what a modality adds is
    the same whichever others are there, and so is its exact Shapley value. The original explains a
    random forest of ten trees on the modalities' predicted labels.

    >>> float(contribution(torch.tensor([[1.0, 0.0], [3.0, 0.0]])))
    2.0
    """
    part = part.double()
    return (part - part.mean(dim=0)).abs().sum()
