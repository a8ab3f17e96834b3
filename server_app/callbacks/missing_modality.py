"""How the model does when a modality is missing at test time."""

from __future__ import annotations

from server_app.callbacks import CALLBACKS, Watched
from server_app.looks import Look
from strategies import Decisions, Metric, RoundReport


@CALLBACKS.register("missing-modality")
class MissingModality(Look):
    """Accuracy of the global model with each modality left out, every ``every`` rounds.

    Parameters
    ----------
    watched : Watched
    every : int, default 1
        Rounds between two looks; the last round always counts. Each look is a pass over the
        test split.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "accuracy_without",
            "without {modality}",
            "%",
            figure="accuracy with a modality missing",
            about="The head sees all modalities but one; test accuracy of the global model.",
        ),
    )

    def __init__(self, watched: Watched, *, every: int = 1) -> None:
        super().__init__(watched.evaluator, every)

    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        modalities = strategy.state.modalities
        subsets = {m: tuple(o for o in modalities if o != m) for m in modalities}
        report.metrics["accuracy_without"] = self.evaluator.accuracies(
            strategy.state.arrays, subsets, strategy.absent_logits()
        )
