"""What is measured once, at a run's end: ``evaluation.json``."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from bmsfed_app.record.evaluation import NAME, ModelViews, RunEvaluation, SplitViews, View
from bmsfed_app.record.files import write_json
from server_app.checkpoints import read
from server_app.evaluation import Evaluator
from server_app.run_folder import RunFolder
from server_app.tally import Tally
from strategies import Callback, Decisions


class ClosingCallback(Callback):
    """Writes how the last model of a complete run does, on every split, overall and by class.

    Parameters
    ----------
    folder : RunFolder
        Receives it.
    evaluators : mapping
        By split: "test" and what else there is.
    """

    def __init__(self, folder: RunFolder, evaluators: Mapping[str, Evaluator]) -> None:
        self.folder, self.evaluators = folder, evaluators
        self.file = folder.path / NAME

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Drop that of the run as it ended before it was resumed."""
        self.file.unlink(missing_ok=True)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Evaluate a run that is complete: its last model, and its best where it is kept.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        if error is None:
            found = RunEvaluation(
                class_names=list(self.folder.config.dataset_info().class_names),
                last=self._views(strategy),
                best=self._best(strategy),
            )
            write_json(self.file, found)

    def _best(self, strategy: Decisions) -> ModelViews | None:
        config, file = self.folder.config, self.folder.checkpoints.best
        if config.keep != "best" or not file.exists():
            return None
        best = copy.copy(strategy)
        best.state = read(file, config)
        return self._views(best)

    def _views(self, strategy: Decisions) -> ModelViews:
        of_training = self.folder.config.prototypes == "train"
        splits = {
            name: split_views(strategy, evaluator, of_training=of_training)
            for name, evaluator in self.evaluators.items()
        }
        return ModelViews(round=strategy.state.round, splits=splits)


def split_views(strategy: Decisions, evaluator: Evaluator, *, of_training: bool) -> SplitViews:
    """Evaluate a strategy's models on one split, by what they see; return their weighted mean.

    Parameters
    ----------
    strategy : Decisions
    evaluator : Evaluator
    of_training : bool
        Whether prototypes are the training data's; else they are the split's own.
    """
    found: dict[tuple[str, str], list[tuple[Tally, float]]] = {}
    for model in strategy.models():
        known = model.prototypes if of_training else None
        for view, tally in evaluator.tallies(model.arrays, known, model.absent).items():
            found.setdefault(view, []).append((tally, model.weight))
    views = {view: Tally.mean(pairs).view() for view, pairs in found.items()}

    def _of(kind: str) -> dict[str, View]:
        return {modality: view for (k, modality), view in views.items() if k == kind}

    return SplitViews(
        all=views["all", ""], prototype=_of("prototype"), head=_of("head"), without=_of("without")
    )
