"""A grid without Flower processes, and a clock that nobody waits for, for tests of strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Error, Message, RecordDict

from ._flower import private
from .local_grid import LocalGrid

#: Answers one message; an exception becomes an error reply, as with a real client.
Handler = Callable[[Message], RecordDict]


class FakeClock:
    """Time that goes on only while somebody sleeps.

    Examples
    --------
    >>> clock = FakeClock()
    >>> clock.at(3, lambda: print("three"))
    >>> clock.sleep(5)
    three
    >>> clock.monotonic()
    5.0
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """Return the seconds slept so far."""
        return self._now

    def sleep(self, seconds: float, /) -> None:
        """Let time pass, and happen what is due."""
        until = self._now + seconds
        while due := [d for d in self._due if d[0] <= until]:
            first = min(due, key=lambda d: d[0])
            self._due.remove(first)
            self._now = max(self._now, first[0])
            first[1]()
        self._now = until

    def at(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._due.append((seconds, happen))


class FakeGrid(LocalGrid):
    """Answers messages from a dictionary of client functions, in this process.

    Parameters
    ----------
    handlers : mapping
        What answers, by any name; the names never reach the strategy.
    seed : int, default 0
        Draws the node ids and the order in which replies arrive.
    silent : collection of str, optional
        Handlers that are connected but never answer.
    keys : mapping, optional
        Nodes' keys by handler, as where a SuperLink authenticates its nodes: a node keeps its id
        as long as it has its key. A handler that is not named is a node that registers itself
        whenever it connects. Without ``keys`` nodes are as in a simulation and have none.
    clock : FakeClock, optional
        Tells the time, where handlers have ``seconds``.

    Attributes
    ----------
    offline : set of str
        Handlers that are not connected; what was sent to them is lost, and they come back as
        another node.
    seconds : dict
        How long handlers train; by default no time. A node takes one message after the other.

    Examples
    --------
    >>> from flwr.app import Message, RecordDict
    >>> grid = FakeGrid({"a": lambda message: RecordDict()})
    >>> [node] = grid.get_node_ids()
    >>> [sent] = grid.push_messages([Message(RecordDict(), node, "train")])
    >>> [reply] = grid.pull_messages([sent])
    >>> reply.has_error()
    False
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        seed: int = 0,
        silent: Iterable[str] = (),
        keys: Mapping[str, str] | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        super().__init__()
        self.handlers = dict(handlers)
        self.silent = set(silent)
        self.keys = keys
        self.offline: set[str] = set()
        self.clock = clock or FakeClock()
        self.seconds: dict[str, float] = {}
        self._free: dict[int, float] = {}  # when each node is done with what it was sent
        self._rng = np.random.default_rng(seed)
        self._names: dict[int, str] = {}
        self._ids: dict[str, int] = {}  # by key
        self._connections: dict[int, int] = {}  # counts them, by node id
        self._replies: dict[str, tuple[float, Message]] = {}  # and when they are there

    @property
    def complete(self) -> bool:
        """Whether everybody is there: nobody waits for those who cannot come."""
        return not self.offline

    def get_node_ids(self) -> Iterable[int]:
        """Return an id for each handler that is not ``offline``, kept while it is there."""
        online = [n for n in self.handlers if n not in self.offline]
        for name in set(online) - set(self._names.values()):
            node_id = self._draw(name)
            self._names[node_id] = name
            self.reconnect(name)
        self._names = {node: n for node, n in self._names.items() if n in online}
        return list(self._names)

    def _draw(self, name: str) -> int:
        drawn = int(self._rng.integers(1, 2**62))
        key = (self.keys or {}).get(name)
        return drawn if key is None else self._ids.setdefault(key, drawn)

    def reconnect(self, name: str) -> None:
        """Let a handler's node connect anew at once, before anybody has seen it gone."""
        for node_id, named in self._names.items():
            if named == name:
                self._connections[node_id] = self._connections.get(node_id, 0) + 1

    def get_nodes(self) -> Iterable[Any]:
        """Return what a SuperLink says of the nodes that are there."""
        nodes = self.get_node_ids()
        return super().get_nodes() if self.keys is None else [self._node(n) for n in nodes]

    def _node(self, node_id: int) -> Any:
        key = (self.keys or {}).get(self._names[node_id])
        count = self._connections[node_id]
        connected = f"2026-01-01T{count:02}:00:00+00:00"
        return private("flwr.proto.node_pb2:NodeInfo")(
            node_id=node_id,
            public_key=f"-----BEGIN {key or node_id}".encode(),
            registered_at=connected if key is None else "2026-01-01T00:00:00+00:00",
            last_activated_at=connected,
        )

    def accept(self, message: Message) -> None:
        """Let the node's handler answer at once; the reply waits to be pulled."""
        node, message_id = message.metadata.dst_node_id, message.metadata.message_id
        name = self._names.get(node)
        if name is not None and name not in self.silent:
            begun = max(self._free.get(node, 0.0), self.clock.monotonic())
            training = message.metadata.message_type == "train"
            self._free[node] = begun + (self.seconds.get(name, 0.0) if training else 0.0)
            self._replies[message_id] = self._free[node], self._answer(name, message)

    def _answer(self, name: str, message: Message) -> Message:
        try:
            return Message(self.handlers[name](message), reply_to=message)
        except Exception as error:
            return Message(
                Error(code=0, reason=f"{type(error).__name__}: {error}"), reply_to=message
            )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies there are, in random order, each once."""
        online, now = set(self.get_node_ids()), self.clock.monotonic()
        found = {i: self._replies[i] for i in message_ids if i in self._replies}
        there = [
            i
            for i, (ready, reply) in found.items()
            if ready <= now and reply.metadata.src_node_id in online
        ]
        return [self._replies.pop(there[i])[1] for i in self._rng.permutation(len(there))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull in one call; those who never answer are not waited for."""
        return self.pull_messages(self.push_messages(messages))
