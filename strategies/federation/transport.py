"""Sending tasks over Flower's ``Grid`` and collecting the answers as they come."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from .._flower import CLIENT_RAISED, LOST, UNKNOWN_QUESTION
from ..local_grid import LocalGrid
from .waiting import SYSTEM, Clock, Closing, Pace
from .watching import Overdue, Watch, sessions
from .wire import payload_bytes

#: Seconds between looks at the grid: short at first, longer where nothing comes (deployments).
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.2

#: A reply, or what was raised in place of one that nobody can read.
_Reply = Message | Exception

#: Modules whose errors are of the way to the SuperLink.
_NETWORK = ("httpx", "httpcore", "grpc")

#: How Flower's processes write down what a client raised.
_WRAPPED = re.compile(r"<class '[^']*'>:<'(.*)'>")


class Interrupted(RuntimeError):
    """The federation was asked to stop."""


@dataclass
class Answer:
    """One node's answer, or why there is none.

    ``plain``: its app does not know the question; ``lost``: nobody said anything, the node may be
    gone or slow, but was not wrong.
    """

    content: RecordDict | None
    error: str = ""
    plain: bool = False
    lost: bool = False
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


#: Message type and content.
Outgoing = tuple[str, RecordDict]


class Transport(Protocol):
    """What carries a round's messages: Flower's grid, or its classic client manager."""

    def node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected now."""

    @property
    def complete(self) -> bool:
        """Whether all nodes are connected that there will ever be."""

    def busy(self) -> set[int]:
        """Return the nodes that still work on a message that nobody waits for any more."""

    def exchange(
        self,
        outgoing: Mapping[int, Outgoing],
        *,
        group: str,
        timeout: float,
        on_reply: Callable[[int], None],
        should_stop: Callable[[], bool],
        closing: Closing,
    ) -> dict[int, Answer]:
        """Send one message to each node and wait for the answers.

        Parameters
        ----------
        outgoing : mapping
            Message type (such as ``"train"``) and content by node id.
        group : str
            Flower's group id; the round, by custom.
        timeout : float
            Seconds to wait; a node silent until then gets an answer with ``error``.
        on_reply : callable
            Called with the number of answers so far.
        should_stop : callable
            Asked at every look; True raises.
        closing : Closing
            What ends it before: a node whose answer has not come by then gets one with ``error``.

        Raises
        ------
        Interrupted
            If ``should_stop`` said so.
        """


@runtime_checkable
class Withdraws(Protocol):
    """A grid that can be told which messages nobody waits for any more."""

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Drop messages and their answers; end the work on them."""


@dataclass
class GridTransport:
    """Messages over Flower's grid, or over a :class:`strategies.testing.FakeGrid`."""

    grid: Grid
    clock: Clock = SYSTEM
    _pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self._overdue = Overdue(self._pace)

    def node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected now."""
        return self.grid.get_node_ids()

    @property
    def complete(self) -> bool:
        """Whether all nodes are connected that there will ever be, as in a simulation."""
        return bool(getattr(self.grid, "complete", False))

    def busy(self) -> set[int]:
        """Return the nodes that still work on a message that nobody waits for any more."""
        if not (old := self._overdue.ids()):
            return set()
        self._wanted([], old)
        return self._overdue.busy(self.clock.monotonic(), sessions(self.grid))

    def exchange(
        self,
        outgoing: Mapping[int, Outgoing],
        *,
        group: str,
        timeout: float,
        on_reply: Callable[[int], None] = lambda done: None,
        should_stop: Callable[[], bool] = lambda: False,
        closing: Closing = Closing(),  # noqa: B008  (frozen)
    ) -> dict[int, Answer]:
        """Send one message to each node and wait for the answers; see :class:`Transport`."""
        types = {node_id: message_type for node_id, (message_type, _) in outgoing.items()}
        limit = self._pace.limit(set(types.values()), timeout, closing.deadline)
        watch = Watch(self.grid, self.clock, closing, limit)
        answers: dict[int, Answer] = {}
        waiting: dict[str, int] = {}
        for node_id, (message_type, content) in outgoing.items():
            message = Message(content, node_id, message_type, group_id=group)
            ids = list(self.grid.push_messages([message]))
            if ids and ids[0]:  # Flower leaves out, or puts None for, what it cannot send
                waiting[ids[0]] = node_id
            why = "could not be sent to its node"
            answers[node_id] = Answer(None, why, lost=True, bytes_down=payload_bytes(content))
        total = len(outgoing)
        try:
            for message_id, reply in self._replies(waiting, watch, should_stop):
                if message_id not in waiting:  # of nobody who was asked, or a second one
                    continue
                node_id = waiting.pop(message_id)
                answer = take(reply, answers[node_id])
                answer.seconds = self.clock.monotonic() - watch.started
                watch.count(answer.content is not None)
                if answer.content is not None:
                    self._pace.learn(types[node_id], node_id, answer.seconds)
                on_reply(total - len(waiting))
        finally:
            if isinstance(self.grid, Withdraws):
                if waiting:
                    self.grid.withdraw(list(waiting))
            else:
                self._overdue.keep(watch, waiting, types, timeout)
        for node_id in waiting.values():
            answers[node_id].error = watch.why(node_id)
        return answers

    def _replies(
        self, waiting: Mapping[str, int], watch: Watch, should_stop: Callable[[], bool]
    ) -> Iterator[tuple[str, _Reply]]:
        """Yield replies, by what they reply to, until nobody is waited for or it is too late."""
        wait = _FIRST_WAIT
        while waiting and not watch.ended(waiting.values()):
            if should_stop():
                raise Interrupted("stopped on request")
            looked = self.clock.monotonic()
            late = watch.late(looked)  # what has come by now still counts
            watch.look(waiting.values())
            replies = self._wanted(list(waiting), self._overdue.ids())
            yield from replies
            if late:
                return
            wait = _FIRST_WAIT if replies else min(wait * 1.5, _LONGEST_WAIT)
            # A grid of this machine has waited itself, or worked. Another one is asked for every
            # reply by itself: as long as that takes, it is left in peace afterwards.
            spent = self.clock.monotonic() - looked
            rest = max(wait - spent, 0.0 if isinstance(self.grid, LocalGrid) else spent)
            if waiting and not replies and rest > 0:
                self.clock.sleep(rest)

    def _wanted(self, wanted: list[str], old: list[str]) -> list[tuple[str, _Reply]]:
        """Return the replies that are wanted; see from others only that their nodes are free."""
        found = []
        for message_id, reply in pulled(self.grid, wanted + old):
            if message_id in old:
                usable = isinstance(reply, Message) and not reply.has_error()
                self._overdue.answered(message_id, self.clock.monotonic(), usable=usable)
            else:
                found.append((message_id, reply))
        return found


def pulled(grid: Grid, message_ids: Sequence[str]) -> list[tuple[str, Message | Exception]]:
    """Pull the replies there are, or in place of one that nobody can read what it raised.

    Flower's grid raises for all that it pulls in one call, and has them no more: there, every
    reply is pulled by a call of its own.

    Returns
    -------
    list of (str, Message or Exception)
        By the message that each replies to.
    """
    if isinstance(grid, LocalGrid):
        return [(r.metadata.reply_to_message_id, r) for r in grid.pull_messages(message_ids)]
    found: list[tuple[str, Message | Exception]] = []
    for message_id in message_ids:
        try:
            found += [(message_id, reply) for reply in grid.pull_messages([message_id])]
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith(_NETWORK):
                raise  # not this client's doing
            found.append((message_id, error))
    return found


def take(reply: Message | Exception, answer: Answer) -> Answer:
    """Fill an answer from what was pulled, and return it."""
    if isinstance(reply, Message):
        return read_reply(reply, answer)
    answer.error, answer.lost = f"its answer cannot be read: {_one_line(repr(reply))[:500]}", False
    return answer


@contextmanager
def quiet_about_plain_nodes() -> Iterator[None]:
    """Keep Flower's simulation from printing a traceback for every node that has no answer."""
    logger = logging.getLogger("flwr")

    def keep(record: logging.LogRecord) -> bool:
        """Whether a record is about something else."""
        text = record.getMessage()
        header = text.startswith(CLIENT_RAISED)
        return not header and not any(words in text for words in UNKNOWN_QUESTION)

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def read_reply(reply: Message, answer: Answer) -> Answer:
    """Fill an answer from a reply's content or error, and return it."""
    if reply.has_error():
        answer.error = _one_line(reply.error.reason or f"error code {reply.error.code}")
        answer.plain = any(words in answer.error for words in UNKNOWN_QUESTION)
        answer.lost = reply.error.code in LOST
        return answer
    answer.lost = False
    try:
        answer.bytes_up = payload_bytes(reply.content)
    except Exception as error:  # whatever stands for an array there
        answer.error = f"unreadable answer: {error!r}"[:500]
        return answer
    answer.content = reply.content
    answer.error = ""
    return answer


def _one_line(reason: str) -> str:
    """Flower wraps a client's exception in several lines of its own; keep what the client said."""
    text = " ".join(reason.split())
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1]
    return text.rpartition("Message: ")[2] or text
