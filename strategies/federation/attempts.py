"""A round is tried until it succeeds: with other clients, or with those that come back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ..callbacks import RoundReport
from .errors import FederationError, Paused, RoundFailed, listed
from .loop import FederatedRun
from .transport import Interrupted

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: Tries with other clients each, all of whose answers were faulty, that end the run: the fault is
#: hardly the clients'.
_FAULTY = 3
#: Seconds between looks at who is there, and before those are asked again that failed.
_LOOK, _PAUSE = 0.5, 10.0


def complete(
    federation: FederatedRun, server_round: int, tell: Callable[[RoundReport], bool]
) -> RoundReport | None:
    """Run a round, and again where it comes to nothing.

    Each try draws anew, from the clients that have not failed in this round while there are some;
    the first draws as if there could be no other.

    Parameters
    ----------
    federation : FederatedRun
    server_round : int
    tell : callable
        Is given the report of every try that came to nothing; True ends the federation.

    Returns
    -------
    RoundReport or None
        Of the try that succeeded; None if ``tell`` wanted an end.

    Raises
    ------
    FederationError
        If the answers of all clients, or of three draws of them, are faulty: no more waiting
        would mend that.
    Paused
        If there was no usable answer for so long as there is patience.
    Interrupted
        If the federation was asked to stop.
    """
    tries = _Tries(federation)
    try:
        while True:
            federation.decisions.attempt = tries.count
            try:
                return federation.round(server_round, tries.failed)
            except RoundFailed as failure:
                failure.report.failed = failure.reason
                if tell(failure.report):
                    return None
                tries.note(failure)
                tries.wait(server_round, failure)
    finally:
        federation.decisions.attempt = 0


@dataclass
class _Tries:
    """The tries of one round that came to nothing."""

    federation: FederatedRun
    count: int = 0
    failed: dict[str, int] = field(default_factory=dict)  # nodes by client id
    _reasons: dict[str, str] = field(default_factory=dict)  # the latest of every client
    _faulty: int = 0
    _since: float | None = None

    def note(self, failure: RoundFailed) -> None:
        """Remember a try, and raise if another one would come to the same.

        Raises
        ------
        FederationError
        """
        federation = self.federation
        federation.meet(failure.report.round)  # who is there may have changed
        self.count += 1
        self._reasons |= failure.report.failures
        asked = {c.client_id for c in failure.report.clients}
        self.failed |= {c: federation.fleet.nodes.get(c, 0) for c in asked}
        self._faulty = 0 if failure.lost else self._faulty + 1
        available = federation.available()
        all_here = bool(available) and len(available) == len(federation.fleet.online())
        none_left = not asked or not federation.available(self.failed)
        if all_here and self._faulty and (none_left or self._faulty >= _FAULTY):
            raise FederationError(self._told(failure)) from None

    def wait(self, server_round: int, failure: RoundFailed) -> None:
        """Return once there is somebody to ask.

        Raises
        ------
        Paused, Interrupted
        """
        federation, clock = self.federation, self.federation.clock
        seconds = federation.patience.waiting.patience
        now = clock.monotonic()
        self._since = now if self._since is None else self._since
        again = now + _PAUSE
        while True:
            if federation.patience.stop.is_set():
                raise Interrupted("stopped on request")
            now = clock.monotonic()
            if now >= self._since + seconds:
                raise Paused(
                    f"{self._told(failure)}\nnobody could be asked with success within "
                    f"{seconds:g} s of patience{federation.gathering.missing()}"
                )
            self._forget(again <= now)
            if federation.available(self.failed):
                return
            gathering = federation.gathering
            if gathering.due():
                gathering.tell(
                    f"round {server_round} waits for clients ({failure.reason})"
                    f"{gathering.missing()}"
                )
            clock.sleep(_LOOK)
            federation.meet(server_round)

    def _told(self, failure: RoundFailed) -> str:
        """Say what went wrong, and of every client why."""
        return f"round {failure.report.round}: {failure.reason}{listed(self._reasons)}"

    def _forget(self, everybody: bool) -> None:
        """Ask those again who came back through another node, or everybody."""
        nodes = self.federation.fleet.nodes
        kept = {} if everybody else {c: n for c, n in self.failed.items() if nodes.get(c, 0) == n}
        self.failed = kept
