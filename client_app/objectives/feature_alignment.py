"""FedPAC's two phases: the head alone, then encoders whose features are pulled to prototypes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output
from bmsfed_app.prototypes import ClassMeans
from client_app.data import LocalData
from client_app.objectives.base import LocalContext, Objective
from strategies import Arrays


@dataclass
class FeatureAlignment(Objective):
    """One epoch of the head on fixed features, then ``CE + lam * sum_m mean((z_m - c_m,y)^2)``.

    The mean is over batch and dimensions; c are the server's prototypes, or the client's own at
    the received model for a class that has none; there is no such term in round 1. The head
    stands still in the second phase, and its first one is at the features of the received
    encoders in eval mode, with the experiment's batch size, momentum, weight decay and clipping.

    The client sends ``shares.<modality>`` (K, D), class share times class mean, and
    ``variance.<modality>`` (1,), both of those features (see :class:`strategies.FedPAC`).

    Parameters
    ----------
    lam : float
        Weight of the second term, >= 0.
    head_lr : float
        Learning rate of the first phase, > 0.
    """

    needs_features: ClassVar[bool] = True  # type: ignore[misc]
    frozen: ClassVar[tuple[str, ...]] = ("head.",)  # type: ignore[misc]

    lam: float = 1.0
    head_lr: float = 0.1
    statistics: Arrays = field(default_factory=dict, init=False)

    def on_start(self, network: MultiModalNetwork, data: LocalData, context: LocalContext) -> None:
        """Measure the received features and train the head on them."""
        for modality, z in context.features.items():
            shares, variance = feature_statistics(z, context.local_prototypes[modality])
            self.statistics[f"shares.{modality}"] = shares.float().cpu().numpy()
            self.statistics[f"variance.{modality}"] = np.array([float(variance)], np.float32)
        self._train_head(network, data, context)

    def _train_head(
        self, network: MultiModalNetwork, data: LocalData, context: LocalContext
    ) -> None:
        # A worker may have frozen this head in an earlier task.
        parameters = list(network.head.requires_grad_().parameters())
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.head_lr,
            momentum=context.momentum,
            weight_decay=context.weight_decay,
        )
        labels = data.labels
        features = {m: z.clone() for m, z in context.features.items()}  # theirs take no gradient
        order = torch.randperm(len(data), generator=context.generator("head"))
        for rows in order.to(labels.device).split(context.batch_size):
            logits = network.head({m: z[rows] for m, z in features.items()})
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if context.clip_norm > 0:
                nn.utils.clip_grad_norm_(parameters, context.clip_norm)
            optimizer.step()

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the batch's loss."""
        loss = F.cross_entropy(output.logits, labels)
        _, server_round, _ = context.origin
        if server_round > 1 and self.lam > 0:
            for modality, z in output.features.items():
                own = context.local_prototypes[modality]
                target = _targets(own, context.global_prototypes.get(modality))
                loss = loss + self.lam * F.mse_loss(z, target[labels])
        return loss

    def after_training(
        self,
        network: MultiModalNetwork,
        features: dict[str, Tensor],
        data: LocalData,
        context: LocalContext,
    ) -> Arrays:
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
