"""What an evaluation found, as a history row has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Evaluation:
    """Accuracies in [0, 1] and the mean cross-entropy on the test split.

    A modality's own are those of the samples that have it.

    Attributes
    ----------
    accuracy : float
        Top-1 with all modalities that a sample has.
    loss : float
        Mean cross-entropy, natural logarithm.
    by_prototype : dict
        Top-1 by nearest prototype, by modality, of the samples that have it; empty where there are
        no prototypes yet.
    by_head : dict
        Top-1 of the head fed with one modality alone, of the samples that have it.
    prototypes : str
        Whose class means were used: "train" (the clients') or "test" (the test features' own).
    metrics : dict
        The experiment's further metrics with all modalities, by name.
    """

    accuracy: float
    loss: float
    by_prototype: dict[str, float] = field(default_factory=dict)
    by_head: dict[str, float] = field(default_factory=dict)
    prototypes: str = "train"
    metrics: dict[str, float] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Return the fields of a history row."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "accuracy_by_modality": self.by_prototype,
            "head_accuracy_by_modality": self.by_head,
            "prototypes": self.prototypes,
            **self.metrics,
        }


def mean_evaluation(evaluations: Sequence[tuple[Evaluation, float]]) -> Evaluation:
    """Weighted mean of (evaluation, weight) pairs; a modality's over the models that have it."""
    if len(evaluations) == 1:
        return evaluations[0][0]

    def _mean(values: Sequence[tuple[float, float]]) -> float:
        return sum(v * w for v, w in values) / sum(w for _, w in values)

    def _by_modality(name: str) -> dict[str, float]:
        found: dict[str, list[tuple[float, float]]] = {}
        for evaluation, weight in evaluations:
            for modality, value in getattr(evaluation, name).items():
                found.setdefault(modality, []).append((value, weight))
        return {m: _mean(values) for m, values in found.items()}

    return Evaluation(
        _mean([(e.accuracy, w) for e, w in evaluations]),
        _mean([(e.loss, w) for e, w in evaluations]),
        _by_modality("by_prototype"),
        _by_modality("by_head"),
        evaluations[0][0].prototypes,
        {
            name: _mean([(e.metrics[name], w) for e, w in evaluations])
            for name in evaluations[0][0].metrics
        },
    )
