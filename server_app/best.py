"""The best round by validation: its checkpoint, and the end of a run that gets no better."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from bmsfed_app.record.files import read_rows
from bmsfed_app.record.rows import RoundRow
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, RoundReport

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

_METRIC = "validation_accuracy"


@dataclass
class Best:
    """The best validation accuracy so far, the first of equal ones.

    Attributes
    ----------
    value : float
    round : int
        Of it; 0 where there is none.
    since : int
        Evaluations since then, none of them better.
    """

    value: float = -math.inf
    round: int = 0
    since: int = 0

    def see(self, server_round: int, value: float) -> bool:
        """Count an evaluation; return whether it is the best so far."""
        if value > self.value:
            self.value, self.round, self.since = value, server_round, 0
            return True
        self.since += 1
        return False


class KeepBest(Callback):
    """Keeps the checkpoint of the best round by validation, as ``checkpoint-best.safetensors``.

    Follows the callback that writes the round's checkpoint.

    Parameters
    ----------
    folder : RunFolder
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.best = folder, Best()

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Go on from the rounds that there are; a run may have been killed between two files."""
        checkpoints, values = self.folder.checkpoints, _validated(self.folder)
        for number, value in values.items():
            self.best.see(number, value)
        kept = checkpoints.best_round(self.folder.config)
        if self.best.round == kept or not self.best.round:
            return
        if self.best.round == strategy.state.round:
            checkpoints.keep_best()
            return
        log.warning(
            "the checkpoint of round %d, the best by validation, is gone: '%s' begins anew",
            *(self.best.round, checkpoints.best),
        )
        self.best = Best(values[kept], kept) if kept in values else Best()

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Keep the round's checkpoint, if it is the best."""
        value = report.metrics.get(_METRIC)
        if value is not None and self.best.see(report.round, value):
            self.folder.checkpoints.keep_best()


class EarlyStopping(Callback):
    """Ends a run once the validation accuracy has not risen for some evaluations.

    Precedes the callback that records the round, with the reason.

    Parameters
    ----------
    folder : RunFolder
        Its ``stop_after`` says how many evaluations; its history has those before a resumed run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.evaluations, self.best = folder, folder.config.stop_after, Best()

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Count what was evaluated before."""
        for number, value in _validated(self.folder).items():
            self.best.see(number, value)

    def after_round(self, strategy: Decisions, report: RoundReport) -> bool:
        """Say why the run ends, if it does."""
        value = report.metrics.get(_METRIC)
        if value is None or self.best.see(report.round, value):
            return False
        if self.best.since < self.evaluations:
            return False
        report.ended = (
            f"the validation accuracy has not risen above the {100 * self.best.value:.1f} % of "
            f"round {self.best.round} for {self.best.since} evaluations (stop_after)"
        )
        return True


def ended_early(folder: RunFolder) -> str:
    """Say why a run ended with its last recorded round, before ``rounds``; empty if it did not."""
    rounds = _rounds(folder)
    return rounds[-1].ended if rounds else ""


def _validated(folder: RunFolder) -> dict[int, float]:
    """Return the validation accuracies by round, in order."""
    values = {row.round: row.metrics.get(_METRIC) for row in _rounds(folder)}
    return {number: value for number, value in values.items() if value is not None}


def _rounds(folder: RunFolder) -> list[RoundRow]:
    rows = read_rows(folder.history)[0] if folder.history.exists() else []
    return sorted((r for r in rows if isinstance(r, RoundRow)), key=lambda r: r.round)
