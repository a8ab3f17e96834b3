"""Counts of a test, from which all that is said of it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bmsfed_app.record.evaluation import ByClass, View

#: Bins of equal width that the calibration error is made of.
BINS = 15


@dataclass(frozen=True)
class Tally:
    """Counts and sums over tested samples, K classes, all float64; those of two tests add up.

    Attributes
    ----------
    confusion : Tensor (K, K)
        Samples by true class (row) and the class found.
    losses : Tensor (K,)
        Sum of the cross-entropies in nats, by true class.
    confidence, hits : Tensor (K, 15)
        By true class and bin of the confidence, right-closed: the sum of the confidences, and the
        samples that are right.
    """

    confusion: Tensor
    losses: Tensor
    confidence: Tensor
    hits: Tensor

    @classmethod
    def of(cls, log_p: Tensor, labels: Tensor) -> Tally:
        """Count, from log-probabilities (n, K) and labels (n,), int64."""
        classes, log_p = log_p.shape[1], log_p.double()
        surest, found = log_p.max(dim=1)
        right, sure = (found == labels).double(), surest.exp()
        place = labels * BINS + ((sure * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        own = log_p.gather(1, labels[:, None]).squeeze(1)

        def _summed(values: Tensor, at: Tensor, size: int) -> Tensor:
            return values.new_zeros(size).index_add_(0, at, values)

        pairs = _summed(torch.ones_like(sure), labels * classes + found, classes**2)
        return cls(
            pairs.view(classes, classes),
            _summed(-own, labels, classes),
            _summed(sure, place, classes * BINS).view(classes, BINS),
            _summed(right, place, classes * BINS).view(classes, BINS),
        )

    @classmethod
    def mean(cls, tallies: Sequence[tuple[Tally, float]]) -> Tally:
        """Weighted mean of (tally, weight) pairs, as of several models on the same samples."""
        if len(tallies) == 1:
            return tallies[0][0]
        total = sum(weight for _, weight in tallies)

        def _mean(name: str) -> Tensor:
            weighted = [getattr(tally, name) * (weight / total) for tally, weight in tallies]
            return torch.stack(weighted).sum(dim=0)

        return cls(_mean("confusion"), _mean("losses"), _mean("confidence"), _mean("hits"))

    @property
    def samples(self) -> Tensor:
        """Samples of each class, (K,)."""
        return self.confusion.sum(dim=1)

    @property
    def recall(self) -> Tensor:
        """Share of each class that is found, (K,); NaN of one that is not there."""
        return self.confusion.diagonal() / self.samples

    @property
    def precision(self) -> Tensor:
        """Share of what is taken for each class that is right, (K,); NaN where nothing is."""
        return self.confusion.diagonal() / self.confusion.sum(dim=0)

    @property
    def f1(self) -> Tensor:
        """F1 of each class, (K,); 0 of one that is neither there nor found."""
        both = self.samples + self.confusion.sum(dim=0)
        return 2 * self.confusion.diagonal() / both.clamp(min=torch.finfo(both.dtype).tiny)

    def accuracy(self) -> float:
        """Share of the samples that are right."""
        return float(self.confusion.trace() / self.samples.sum())

    def macro_f1(self) -> float:
        """Mean of :attr:`f1`, each class counting alike."""
        return float(self.f1.mean())

    def uar(self) -> float:
        """Unweighted average recall, also called balanced accuracy, of the classes there are."""
        return float(self.recall[self.samples > 0].mean())

    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.losses.sum() / self.samples.sum())

    def ece(self) -> float:
        """Expected calibration error: mean over the samples of |accuracy - confidence| of its bin.

        Source: Guo et al., ICML 2017, Eq. 3, https://arxiv.org/abs/1706.04599; 15 bins.
        """
        return float((self.hits - self.confidence).sum(dim=0).abs().sum() / self.samples.sum())

    def view(self) -> View:
        """Return all of it as a run folder keeps it."""
        ece = (self.hits - self.confidence).abs().sum(dim=1) / self.samples
        classes = ByClass(
            samples=self.samples.tolist(),
            recall=_known(self.recall),
            precision=_known(self.precision),
            f1=self.f1.tolist(),
            loss=_known(self.losses / self.samples),
            ece=_known(ece),
        )
        loss = self.loss()
        return View(
            samples=float(self.samples.sum()),
            accuracy=self.accuracy(),
            macro_f1=self.macro_f1(),
            uar=self.uar(),
            loss=loss if loss < torch.inf else None,
            ece=self.ece(),
            by_class=classes,
            confusion=self.confusion.tolist(),
        )


def _known(values: Tensor) -> list[float | None]:
    """Return numbers, None where they are not finite: JSON has no name for these."""
    finite = values.isfinite().tolist()
    return [v if known else None for v, known in zip(values.tolist(), finite, strict=True)]
