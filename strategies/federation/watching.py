"""Who of an exchange is still waited for, and what became of those who are not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from .waiting import LATE, Clock, Closing, Pace

#: Seconds between looks at who is connected while answers are waited for.
_LOOK = 5.0


def sessions(grid: Grid) -> dict[int, str]:
    """Return when each connected node was started, by node id; "" where nothing tells."""
    return {node.node_id: node.last_activated_at for node in grid.get_nodes()}


class Watch:
    """One exchange as it goes on.

    A node that is gone, or was started anew since it was asked, has forgotten what it was asked;
    it is given up after a grace, in which its answer may still be on its way.

    Parameters
    ----------
    grid : Grid
    clock : Clock
    closing : Closing
        What ends the exchange early.
    limit : (float, str)
        Seconds after which it ends, and what to say then.
    """

    def __init__(
        self, grid: Grid, clock: Clock, closing: Closing, limit: tuple[float, str]
    ) -> None:
        self.grid, self.clock, self.closing = grid, clock, closing
        self.started = self._looked = clock.monotonic()
        self.before = sessions(grid)
        self._limit, self._too_slow = limit
        self._gone: dict[int, float] = {}  # since when
        self._usable = 0

    def count(self, usable: bool) -> None:
        """Note one more answer."""
        self._usable += usable

    def late(self, now: float) -> bool:
        """Whether the time is over."""
        return now >= self.started + self._limit

    def ended(self, waiting: Collection[int]) -> bool:
        """Whether the nodes that have not answered are waited for no longer."""
        return self._suffices() or all(self._left(node) for node in waiting)

    def look(self, waiting: Iterable[int]) -> None:
        """See, every few seconds, who of the nodes waited for is gone."""
        now = self.clock.monotonic()
        if now < self._looked + _LOOK:
            return
        self._looked, after = now, sessions(self.grid)
        gone = {n for n in waiting if n not in after or after[n] != self.before.get(n, after[n])}
        self._gone = {n: self._gone.get(n, now) for n in gone}

    def why(self, node: int) -> str:
        """Say why a node's answer is missing."""
        if self._left(node):
            return "it left, or was started anew, while it worked"
        return LATE if self._suffices() else self._too_slow

    def _suffices(self) -> bool:
        return self.closing.enough is not None and self._usable >= self.closing.enough

    def _left(self, node: int) -> bool:
        return node in self._gone and self._looked >= self._gone[node] + self.closing.grace


@dataclass(frozen=True)
class _Old:
    """A message whose exchange was closed without its answer."""

    message_type: str
    node_id: int
    session: str
    sent: float
    until: float


@dataclass
class Overdue:
    """Messages that nobody waits for any more, but that nodes still work on.

    A SuperNode works on one message after the other and Flower has no way to take one back: until
    it answers the old one, is started anew, or its time is over, it would only queue a new one.
    """

    pace: Pace
    _old: dict[str, _Old] = field(default_factory=dict)

    def ids(self) -> list[str]:
        """Return the messages' ids."""
        return list(self._old)

    def keep(
        self, watch: Watch, waiting: Mapping[str, int], types: Mapping[int, str], timeout: float
    ) -> None:
        """Remember the messages that an exchange ended without."""
        for message_id, node in waiting.items():
            session = watch.before.get(node, "")
            until = watch.started + timeout
            self._old[message_id] = _Old(types[node], node, session, watch.started, until)

    def answered(self, message_id: str, now: float, *, usable: bool) -> None:
        """Note that a node is free again, and how long it took."""
        old = self._old.pop(message_id)
        if usable:
            self.pace.learn(old.message_type, old.node_id, now - old.sent)

    def busy(self, now: float, connected: Mapping[int, str]) -> set[int]:
        """Return the nodes at work, of those that are connected."""
        self._old = {
            i: old
            for i, old in self._old.items()
            if now < old.until and connected.get(old.node_id) == old.session
        }
        return {old.node_id for old in self._old.values()}
