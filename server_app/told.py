"""What clients tell of their training, as the method declares it: means over a round's clients."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from strategies import Callback, Decisions, Metric, RoundReport


class ToldCallback(Callback):
    """Puts into every round the means of shares that clients told by modality.

    All clients count the same. One that told nothing of a modality, or no share, does not count
    there; a modality of which nobody told any is left out.

    Parameters
    ----------
    metrics : sequence of Metric
        By modality, in percent; of client metrics ``<name>.<modality>``.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        for metric in self.metrics:
            keys = {m: f"{metric.name}.{m}" for m in strategy.state.modalities}
            told = {
                m: [c.metrics[key] for c in report.trained if 0 <= c.metrics.get(key, -1) <= 1]
                for m, key in keys.items()
            }
            report.metrics[metric.name] = {m: fmean(values) for m, values in told.items() if values}
