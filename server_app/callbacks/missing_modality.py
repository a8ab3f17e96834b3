"""How the model does when a modality is missing at test time."""

from __future__ import annotations

from server_app.callbacks import CALLBACKS, Watched
from strategies import Callback, Decisions, Metric, RoundReport


@CALLBACKS.register("missing-modality")
class MissingModality(Callback):
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
        self.evaluator, self.every = watched.evaluator, every
        self.num_rounds = 0

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        self.num_rounds = num_rounds

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if report.round % self.every and report.round != self.num_rounds:
            return
        modalities = strategy.state.modalities
        subsets = {m: tuple(o for o in modalities if o != m) for m in modalities}
        report.metrics["accuracy_without"] = self.evaluator.accuracies(
            strategy.state.arrays, subsets, strategy.absent_logits()
        )
