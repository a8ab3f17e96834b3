"""What evaluates every few rounds, and after the last."""

from __future__ import annotations

from abc import ABC, abstractmethod

from server_app.evaluation import Evaluator
from server_app.outcome import Evaluation, mean_evaluation
from strategies import Callback, Decisions, RoundReport


class Look(Callback, ABC):
    """Base of callbacks that evaluate every ``every`` rounds; they say how in :meth:`look`.

    Parameters
    ----------
    evaluator : Evaluator
        Evaluates models on one split.
    every : int
        Rounds between two looks, >= 1; the last round always counts.

    Raises
    ------
    ValueError
        If ``every`` is no whole number from 1.
    """

    def __init__(self, evaluator: Evaluator, every: int) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every: {every!r} is no number of rounds from 1; 1 is every round")
        self.evaluator, self.every = evaluator, every
        self.num_rounds = 0

    @abstractmethod
    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Put what is found into the report's ``metrics``."""

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Note which round is the last."""
        self.num_rounds = num_rounds

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Look, if it is time."""
        if report.round % self.every == 0 or report.round == self.num_rounds:
            self.look(strategy, report)


def mean_of_models(strategy: Decisions, evaluator: Evaluator) -> Evaluation:
    """Evaluate each of a strategy's models with its own prototypes; return the weighted mean."""
    return mean_evaluation(
        [(evaluator(m.arrays, m.prototypes, m.absent), m.weight) for m in strategy.models()]
    )
