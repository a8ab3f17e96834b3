"""How the model does on test samples that lack what the clients' samples lack in a simulation."""

from __future__ import annotations

from server_app.evaluation import Evaluator, mean_evaluation
from strategies import Callback, Decisions, Metric, RoundReport


class MaskedCallback(Callback):
    """Puts the accuracy on the test split, masked as in training, into every evaluated round.

    Parameters
    ----------
    evaluator : Evaluator
        Of the masked split.
    every : int
        Rounds between two looks; the last round always counts.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "accuracy_masked",
            "masked as in training",
            "%",
            figure="accuracy",
            column="masked",
            about="Masked as in training: test samples lack as much as the "
            "clients' samples (`missing`).",
        ),
    )

    def __init__(self, evaluator: Evaluator, every: int) -> None:
        self.evaluator, self.every = evaluator, every
        self.num_rounds = 0

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        self.num_rounds = num_rounds

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        if report.round % self.every and report.round != self.num_rounds:
            return
        models = strategy.models()
        found = [(self.evaluator(m.arrays, m.prototypes, m.absent), m.weight) for m in models]
        report.metrics["accuracy_masked"] = mean_evaluation(found).accuracy
