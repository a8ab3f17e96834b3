"""Questions whose answers nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from .transport import Answer, GridTransport, Outgoing, Transport, Withdraws, pulled, take
from .waiting import Clock, Closing
from .wire import payload_bytes

#: Seconds between looks at a grid whose answers are all waited for.
_LOOK = 0.02

_Exchange = Callable[[Mapping[int, Outgoing], str], dict[int, Answer]]


class Aside(Protocol):
    """Sends questions beside a round and collects what has been answered."""

    def pending(self) -> set[int]:
        """Return the nodes that have yet to answer."""

    def send(self, outgoing: Mapping[int, Outgoing], group: str) -> None:
        """Send one message to each node."""

    def collect(self, seconds: float) -> dict[int, Answer]:
        """Return what has been answered since the last call, without waiting for it.

        Parameters
        ----------
        seconds : float
            How long to wait all the same where clients are simulated: all of them answer, and
            what a run does may not depend on which of them are faster.
        """

    def drop(self, nodes: Collection[int]) -> None:
        """Wait for these nodes no more."""


class GridAside:
    """Questions over Flower's grid."""

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self.grid, self.clock = grid, clock
        self._asked: dict[str, tuple[int, Answer, float]] = {}  # by message id

    def pending(self) -> set[int]:
        """Return the nodes that have yet to answer."""
        return {node_id for node_id, _, _ in self._asked.values()}

    def send(self, outgoing: Mapping[int, Outgoing], group: str) -> None:
        """Send one message to each node; what cannot be sent is tried again by who asks next."""
        for node_id, (kind, content) in outgoing.items():
            message = Message(content, node_id, kind, group_id=group)
            ids = list(self.grid.push_messages([message]))
            if ids and ids[0]:
                answer = Answer(None, bytes_down=payload_bytes(content))
                self._asked[ids[0]] = node_id, answer, self.clock.monotonic()

    def collect(self, seconds: float) -> dict[int, Answer]:
        """Return what has been answered since the last call; see :class:`Aside`."""
        found: dict[int, Answer] = {}
        until = self.clock.monotonic() + (
            seconds if getattr(self.grid, "all_answer", False) else 0.0
        )
        while self._asked:
            for message_id, reply in pulled(self.grid, list(self._asked)):
                if message_id not in self._asked:  # a second one
                    continue
                node_id, answer, sent = self._asked.pop(message_id)
                answer.seconds = self.clock.monotonic() - sent
                found[node_id] = take(reply, answer)
            if self.clock.monotonic() >= until:
                break
            if self._asked:
                self.clock.sleep(_LOOK)
        return found

    def drop(self, nodes: Collection[int]) -> None:
        """Wait for these nodes no more."""
        gone = [i for i, (node_id, _, _) in self._asked.items() if node_id in nodes]
        for message_id in gone:
            del self._asked[message_id]
        if gone and isinstance(self.grid, Withdraws):
            self.grid.withdraw(gone)


class AskingAside:
    """Questions over a transport that can only wait: it does so when they are sent.

    Parameters
    ----------
    exchange : callable
        Sends messages, as a group, and waits for all answers.
    """

    def __init__(
        self, exchange: Callable[[Mapping[int, Outgoing], str], dict[int, Answer]]
    ) -> None:
        self.exchange = exchange
        self._answers: dict[int, Answer] = {}

    def pending(self) -> set[int]:
        """Return the nodes whose answers have yet to be collected."""
        return set(self._answers)

    def send(self, outgoing: Mapping[int, Outgoing], group: str) -> None:
        """Send one message to each node, and wait."""
        self._answers |= self.exchange(outgoing, group)

    def collect(self, seconds: float) -> dict[int, Answer]:
        """Return what was answered."""
        answers, self._answers = self._answers, {}
        return answers

    def drop(self, nodes: Collection[int]) -> None:
        """Keep no answers of these nodes."""
        for node_id in nodes:
            self._answers.pop(node_id, None)


def aside_of(transport: Transport, timeout: float) -> Aside:
    """Return what asks beside the rounds of a transport."""
    if isinstance(transport, GridTransport):
        return GridAside(transport.grid, transport.clock)

    def exchange(outgoing: Mapping[int, Outgoing], group: str) -> dict[int, Answer]:
        """Ask and wait."""
        return transport.exchange(
            outgoing,
            group=group,
            timeout=timeout,
            on_reply=lambda done: None,
            should_stop=lambda: False,
            closing=Closing(),
        )

    return AskingAside(exchange)
