"""Prototypes, distances to them, and what follows: scores, imbalance ratios, modal enhancement.

Shape legend: B samples, K classes, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strategies import Prototypes

#: Scores are clamped below here, so that every ratio is finite.
MIN_SCORE = 1e-12


@dataclass(frozen=True)
class ClassMeans:
    """Prototypes of one modality as tensors.

    Attributes
    ----------
    means : Tensor (K, D)
        Class means; rows of absent classes are ignored.
    counts : Tensor (K,), int64
        Samples behind each; 0 marks an absent class.
    covering : bool
        Known to have every class that is asked for. Otherwise losses leave out samples whose class
        is absent, for which they wait for the device.
    """

    means: Tensor
    counts: Tensor
    covering: bool = False

    @property
    def present(self) -> Tensor:
        """Which classes have a prototype, (K,) bool."""
        return self.counts > 0

    @classmethod
    def from_message(cls, prototypes: Prototypes, device: torch.device | str) -> ClassMeans:
        """Copy received prototypes to a device."""
        means = torch.tensor(prototypes.means, device=device)
        counts = torch.tensor(prototypes.counts, device=device)
        return cls(means, counts, covering=bool((prototypes.counts > 0).all()))

    def to_message(self) -> Prototypes:
        """Return them as arrays, to be sent."""
        return Prototypes(self.means.cpu().numpy(), self.counts.cpu().numpy())

    def withheld(self, least: int) -> ClassMeans:
        """Return them without the classes of fewer than ``least`` samples: absent, mean 0."""
        small = self.counts < least
        means = self.means.masked_fill(small[:, None], 0.0)
        return ClassMeans(means, self.counts.masked_fill(small, 0))


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
    """Mean feature of every class (Eqs. 5, 14), summed in float64.

    Parameters
    ----------
    features : Tensor (B, D)
    labels : Tensor (B,), int64
    num_classes : int
    """
    sums = features.new_zeros((num_classes, features.shape[1]), dtype=torch.float64)
    sums.index_add_(0, labels, features.double())
    counts = torch.bincount(labels, minlength=num_classes)
    means = sums / counts.clamp(min=1)[:, None]
    return ClassMeans(means.to(features.dtype), counts)


def log_probabilities(features: Tensor, prototypes: ClassMeans) -> Tensor:
    """``log softmax_j(-||z_i - c_j||)``, shape (B, K); -inf for absent classes.

    The distance is computed directly, not through a matrix product, and its gradient at zero
    distance is zero, so a sample equal to its prototype gives no NaN.
    """
    distances = torch.cdist(features, prototypes.means, compute_mode="donot_use_mm_for_euclid_dist")
    logits = (-distances).masked_fill(~prototypes.present, -torch.inf)
    return torch.log_softmax(logits, dim=1)


def enhancement_loss(features: Tensor, labels: Tensor, prototypes: ClassMeans) -> Tensor:
    """Modal enhancement loss of one modality (Eq. 7): mean ``-log p`` of the true class.

    Samples whose class has no prototype are left out; 0 if none is left, or none was given.

    Parameters
    ----------
    features : Tensor (B, D)
    labels : Tensor (B,), int64
    prototypes : ClassMeans
        The global ones, by the paper.
    """
    usable = None if prototypes.covering else prototypes.present[labels]
    if not len(labels) or (usable is not None and not usable.any()):
        return features.sum() * 0.0
    log_p = log_probabilities(features, prototypes)
    of_true_class = log_p.gather(1, labels[:, None]).squeeze(1)
    return -(of_true_class if usable is None else of_true_class[usable]).mean()


def score(features: Tensor, labels: Tensor, prototypes: ClassMeans) -> Tensor:
    """``s_m = sum_i softmax_j(-||z_i - c_j||)[y_i]`` (Eq. 16), at least ``MIN_SCORE``.

    A scalar, float64, on the features' device.
    """
    log_p = log_probabilities(features.detach(), prototypes)
    true_class = log_p.gather(1, labels[:, None]).exp()
    return true_class.double().sum().clamp(min=MIN_SCORE)


def hits(features: Tensor, labels: Tensor, prototypes: ClassMeans) -> Tensor:
    """Samples whose nearest prototype is their own class's, at least ``MIN_SCORE``; see score."""
    nearest = log_probabilities(features.detach(), prototypes).argmax(dim=1)
    return (nearest == labels).double().sum().clamp(min=MIN_SCORE)


def coefficient(ratio: float, kind: Literal["clipped", "constant"], value: float = 1.0) -> float:
    """Weight of the enhancement loss: ``clip(rho - 1, 0, 1)`` (Eq. 19), or a constant."""
    return min(max(ratio - 1.0, 0.0), 1.0) if kind == "clipped" else value
