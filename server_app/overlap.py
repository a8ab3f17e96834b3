"""What follows a round (evaluation, recording, showing) beside the next one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from server_app.failures import is_failure
from strategies import Callback, Decisions, RoundReport
from strategies.callbacks import Connections, tell_end


class Overlapped(Callback):
    """Tells callbacks of a round while the next one runs, in a thread of its own.

    What they see and say is the same as if the next round had waited for them: they are given the
    strategy as it was when their round ended, an error or a wish to stop counts from there, and
    what has been done of the next round by then is dropped. Rounds follow each other; no more than
    one waits to be seen.

    Parameters
    ----------
    callbacks : sequence of Callback
        Told in this order. ``after_round`` runs in the thread, all else in the caller's. One that
        must see a round before the next one begins (``before_next_round``) holds up all of them.
    overlap : bool, default True
        False tells them in the caller's thread, before the next round.
    """

    def __init__(self, callbacks: Sequence[Callback], overlap: bool = True) -> None:
        self.callbacks = callbacks
        self.overlap = overlap and not any(c.before_next_round for c in callbacks)
        self.num_rounds = 0
        self._worker = ThreadPoolExecutor(1, "after-round")
        self._told: Future[bool] | None = None  # of the last round that was handed on
        self._seen: Decisions | None = None  # as it was then

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Tell all of them."""
        self.num_rounds = num_rounds
        for callback in self.callbacks:
            callback.on_start(strategy, num_rounds)

    def on_connections(self, connections: Connections) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_connections(connections)

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Tell all of them, unless one has failed meanwhile."""
        self._raise_what_failed()
        for callback in self.callbacks:
            callback.on_dispatch(server_round, phase, total)

    def on_reply(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Tell all of them, unless one has failed meanwhile."""
        self._raise_what_failed()
        for callback in self.callbacks:
            callback.on_reply(server_round, phase, done, total)

    def after_round(self, strategy: Decisions, report: RoundReport) -> bool:
        """Wait until the round before has been seen, then hand this one on; wait for the last."""
        if not self.overlap:
            return self._tell(strategy, report)
        if self._told is not None and self._told.result():
            return True
        self._seen = copy.copy(strategy)
        self._seen.state = strategy.state.snapshot()
        self._told = self._worker.submit(self._tell, self._seen, report)
        return report.round == self.num_rounds and self._told.result()

    def after_failure(self, strategy: Decisions, report: RoundReport) -> bool:
        """Tell all of them here, once the round before has been seen."""
        if self._told is not None and self._told.result():
            return True
        wishes = [callback.after_failure(strategy, report) for callback in self.callbacks]
        return any(wishes)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Let them finish, and tell them of the end of the last round that they have seen.

        Raises
        ------
        Exception
            What one of them raised meanwhile: it ended the run, before whatever came later.
        """
        self._worker.shutdown()
        failed = self._told.exception() if self._told is not None else None
        last = self._seen or strategy
        strategy.state = last.state
        tell_end(self.callbacks, last, failed or error, failed=is_failure(failed or error))
        if failed is not None and failed is not error:
            raise failed

    def _tell(self, strategy: Decisions, report: RoundReport) -> bool:
        """Tell all of them of a round, also after one of them asked to stop."""
        wishes = [callback.after_round(strategy, report) for callback in self.callbacks]
        return any(wishes)

    def _raise_what_failed(self) -> None:
        if self._told is not None and self._told.done():
            self._told.result()
