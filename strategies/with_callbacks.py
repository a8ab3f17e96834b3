"""Callbacks around any strategy of Flower's Message API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from .callbacks import Callback, RoundReport, tell_end

#: Flower's centralised evaluation.
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class WithCallbacks(Strategy):
    """A strategy of Flower's, or of anybody's, that tells callbacks of its rounds.

    ``WithCallbacks(strategy, callbacks).start(...)`` is ``strategy.start(...)`` for whatever leaves
    Flower's loop as it is. Callbacks see a report for every round, whose ``metrics`` hold what was
    aggregated under ``"train"`` and ``"evaluate"``, and what ``evaluate_fn`` found under
    ``"server"``; of a strategy of this package also who trained what. They are given the strategy
    itself, which has a ``state`` only where it is one of this package. Flower's loop cannot be
    left: where ``after_round`` asks to stop, it goes on.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        Decides and averages.
    callbacks : sequence of Callback
        Told of start, rounds and end, in this order.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> from strategies import Callback
    >>> class Show(Callback):
    ...     def after_round(self, strategy, report):
    ...         print(report.round, report.metrics["train"])
    >>> strategy = WithCallbacks(FedAvg(), [Show()])
    """

    def __init__(self, strategy: Strategy, callbacks: Sequence[Callback]) -> None:
        self.strategy, self.callbacks = strategy, callbacks
        self._found: dict[str, dict[str, Any]] = {}
        self._tells_after_server = False

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the federation as Flower does, and tell the callbacks of it."""

        def evaluated(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            """Evaluate; the round ends here."""
            assert evaluate_fn is not None
            found = evaluate_fn(server_round, arrays)
            if server_round > 0:
                self._note("server", found)
                self._tell(server_round)
            return found

        self._tells_after_server, error = evaluate_fn is not None, None
        inner = cast(Any, self.strategy)
        try:
            for callback in self.callbacks:
                callback.on_start(inner, num_rounds)
            return super().start(
                *(grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config),
                evaluated if evaluate_fn else None,
            )
        except BaseException as raised:
            error = raised
            raise
        finally:
            tell_end(self.callbacks, inner, error, failed=error is not None)

    def _note(self, name: str, found: MetricRecord | None) -> None:
        if found is not None:
            self._found[name] = dict(found)

    def _tell(self, server_round: int) -> None:
        own = getattr(self.strategy, "report", None)
        report = RoundReport(server_round)
        if isinstance(own, RoundReport) and own.round == server_round:
            report = own
        report = replace(report, metrics={**report.metrics, **self._found})
        self._found = {}
        for callback in self.callbacks:
            callback.after_round(cast(Any, self.strategy), report)

    # --- flwr's interface ------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy does; what it finds is noted."""
        arrays, found = self.strategy.aggregate_train(server_round, replies)
        self._note("train", found)
        return arrays, found

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """As the strategy does; without ``evaluate_fn``, the round ends here."""
        found = self.strategy.aggregate_evaluate(server_round, replies)
        self._note("evaluate", found)
        if not self._tells_after_server:
            self._tell(server_round)
        return found

    def summary(self) -> None:
        """As the strategy does."""
        self.strategy.summary()
