"""FedPAC's two phases: the head alone, then encoders whose features are pulled to prototypes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import Output
from bmsfed_app.prototypes import ClassMeans
from client_app.data import LocalData
from client_app.features import there
from client_app.head_fitting import fit_head
from client_app.objectives.base import OBJECTIVES, Needs, Objective
from strategies import Arrays


@OBJECTIVES.register("feature_alignment")
@dataclass
class FeatureAlignment(Objective):
    """One epoch of the head on fixed features, then ``CE + lam * sum_m mean((z_m - c_m,y)^2)``.

    The mean is over batch and dimensions; c are the server's prototypes, or the client's own at
    the received model for a class that has none; there is no such term in round 1. The head
    stands still in the second phase, and its first one is at the features of the received
    encoders in eval mode, with the experiment's batch size, optimiser, weight decay and clipping.

    The client sends ``shares.<modality>`` (K, D), class share times class mean, and
    ``variance.<modality>`` (1,), both of those features (see :class:`strategies.FedPAC`).

    Parameters
    ----------
    lam : float
        Weight of the second term, >= 0.
    head_lr : float
        Learning rate of the first phase, > 0.
    """

    frozen: ClassVar[tuple[str, ...]] = ("head.",)

    lam: float
    head_lr: float
    statistics: Arrays = field(default_factory=dict, init=False)

    @property
    def needs(self) -> Needs:
        """The head trains on them, and statistics are of them."""
        return Needs.FEATURES

    def on_start(self, data: LocalData) -> None:
        """Measure the received features and train the head on them."""
        own, features = self.context.local_prototypes, self.context.features
        for modality, (z, rows) in there(features, data.gaps(features)).items():
            shares, variance = feature_statistics(z[rows], own[modality])
            shares[own[modality].counts < data.min_class_count] = 0.0  # such classes are withheld
            self.statistics[f"shares.{modality}"] = shares.float().cpu().numpy()
            self.statistics[f"variance.{modality}"] = np.array([float(variance)], np.float32)
        self._train_head(data)

    def _train_head(self, data: LocalData) -> None:
        head = self.network.head

        def loss(features: dict[str, Tensor], labels: Tensor, present: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(head(features, present), labels)

        fit_head(head, self.context.features, data, loss, self.context, self.head_lr)

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        loss, context = super().loss(output, labels), self.context
        if context.orders.round > 1 and self.lam > 0:
            for modality, z in output.features.items():
                own = context.local_prototypes[modality]
                target = _targets(own, context.global_prototypes.get(modality))
                z, targets = output.of(modality, z), target[output.of(modality, labels)]
                if len(z):
                    loss = loss + self.lam * F.mse_loss(z, targets)
        return loss

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return the statistics of the received features."""
        return self.statistics


def feature_statistics(features: Tensor, means: ClassMeans) -> tuple[Tensor, Tensor]:
    """Return h (K, D) and V (a scalar) of features (n, D) whose class means are given, float64.

    ``h_c = p_c mu_c`` and ``V = (E||z||^2 - sum_c ||h_c||^2) / n``.
    """
    n = len(features)
    shares = means.means.double() * (means.counts.double() / n)[:, None]
    spread = features.double().square().sum(dim=1).mean() - shares.square().sum()
    return shares, spread.clamp(min=0) / n


def _targets(own: ClassMeans, known: ClassMeans | None) -> Tensor:
    """Prototypes (K, D) to pull to: the server's, and the client's own where it has none."""
    if known is None:
        return own.means
    return torch.where(known.present[:, None], known.means, own.means)
