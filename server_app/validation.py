"""How the model does on training samples that no client has: what may be tuned on."""

from __future__ import annotations

from server_app.evaluation import Evaluator, mean_evaluation
from strategies import Callback, Decisions, Metric, RoundReport


class ValidationCallback(Callback):
    """Puts accuracy and loss on the validation samples into every evaluated round.

    Parameters
    ----------
    evaluator : Evaluator
        Of these samples.
    every : int
        Rounds between two looks; the last round always counts.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "validation_accuracy",
            "validation",
            "%",
            figure="validation accuracy",
            about="Accuracy on training samples that no client has (`validation`).",
        ),
        Metric("validation_loss", "validation loss", figure="validation loss"),
        Metric(
            "validation_head_accuracy",
            "validation, {modality} through the head",
            "%",
            figure="validation accuracy of each modality through the head",
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
        found = mean_evaluation(
            [(self.evaluator(m.arrays, m.prototypes, m.absent), m.weight) for m in models]
        )
        report.metrics |= {
            "validation_accuracy": found.accuracy,
            "validation_loss": found.loss,
            "validation_head_accuracy": found.by_head,
        }
