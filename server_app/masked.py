"""How the model does on test samples of which as much is missing as in training."""

from __future__ import annotations

from server_app.evaluation import Evaluator, mean_evaluation
from strategies import Callback, Decisions, Metric, RoundReport


class MaskedCallback(Callback):
    """Puts accuracy and loss on the masked test split into every evaluated round.

    Parameters
    ----------
    evaluator : Evaluator
        Of the test split masked as training is (`missing`).
    every : int
        Rounds between two looks; the last round always counts.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "accuracy_masked",
            "test accuracy, masked",
            "%",
            figure="test accuracy, masked as in training",
            about="Accuracy on the test split of which as much is missing as in training.",
        ),
        Metric("loss_masked", "test loss, masked", figure="test loss, masked as in training"),
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
        found = mean_evaluation(
            [(self.evaluator(m.arrays, m.prototypes, m.absent), m.weight) for m in models]
        )
        report.metrics |= {"accuracy_masked": found.accuracy, "loss_masked": found.loss}
