"""How the model does on other samples than the test split as it is."""

from __future__ import annotations

from server_app.looks import Look, mean_of_models
from strategies import Decisions, Metric, RoundReport


class MaskedCallback(Look):
    """Accuracy and loss on the test split of which as much is missing as in training (`missing`).

    Its evaluator is of that split; see :class:`server_app.looks.Look`.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "accuracy_masked",
            "test accuracy, masked",
            "%",
            figure="test accuracy, masked as in training",
            about="Accuracy on the test split of which as much is missing as in training.",
        ),
        Metric(
            "loss_masked",
            "test loss, masked",
            figure="test loss, masked as in training",
            lower_is_better=True,
        ),
    )

    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        found = mean_of_models(strategy, self.evaluator)
        report.metrics |= {"accuracy_masked": found.accuracy, "loss_masked": found.loss}


class ValidationCallback(Look):
    """Accuracy and loss on training samples that no client has: what may be tuned on.

    Its evaluator is of these (`validation`); see :class:`server_app.looks.Look`.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "validation_accuracy",
            "validation",
            "%",
            figure="validation accuracy",
            about="Accuracy on training samples that no client has (`validation`).",
        ),
        Metric(
            "validation_loss",
            "validation loss",
            figure="validation loss",
            lower_is_better=True,
        ),
        Metric(
            "validation_head_accuracy",
            "validation, {modality} through the head",
            "%",
            figure="validation accuracy of each modality through the head",
        ),
    )

    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        found = mean_of_models(strategy, self.evaluator)
        report.metrics |= {
            "validation_accuracy": found.accuracy,
            "validation_loss": found.loss,
            "validation_head_accuracy": found.by_head,
        }
