"""A grid without Flower processes, for tests of strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import Error, Message, RecordDict

from .local_grid import LocalGrid

#: Answers one message; an exception becomes an error reply, as with a real client.
Handler = Callable[[Message], RecordDict]


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
        self, handlers: Mapping[str, Handler], *, seed: int = 0, silent: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.handlers = dict(handlers)
        self.silent = set(silent)
        self.offline: set[str] = set()
        self._rng = np.random.default_rng(seed)
        self._names: dict[int, str] = {}
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return a random id for each handler that is not ``offline``, kept while it is there."""
        online = [n for n in self.handlers if n not in self.offline]
        for name in set(online) - set(self._names.values()):
            self._names[int(self._rng.integers(1, 2**62))] = name
        self._names = {node: n for node, n in self._names.items() if n in online}
        return list(self._names)

    def accept(self, message: Message) -> None:
        """Let the node's handler answer at once; the reply waits to be pulled."""
        name = self._names.get(message.metadata.dst_node_id)
        if name is not None and name not in self.silent:
            self._replies[message.metadata.message_id] = self._answer(name, message)

    def _answer(self, name: str, message: Message) -> Message:
        try:
            return Message(self.handlers[name](message), reply_to=message)
        except Exception as error:
            return Message(
                Error(code=0, reason=f"{type(error).__name__}: {error}"), reply_to=message
            )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies there are, in random order, each once."""
        there = [i for i in message_ids if i in self._replies]
        return [self._replies.pop(there[i]) for i in self._rng.permutation(len(there))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull in one call; those who never answer are not waited for."""
        return self.pull_messages(self.push_messages(messages))
