"""Clients in this process, one after the other: for one's desk, debuggers, profilers and tests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Message

from bmsfed_app.engine.base import SimulationGrid
from bmsfed_app.engine.work import Work

#: Seconds that clients work before the server is told which of them are done.
_SLICE = 0.05


class InlineGrid(SimulationGrid):
    """Simulated clients that work in the thread that asks for their answers.

    Nothing is started, and no message is copied. A client that never returns is waited for: to
    give up on one after a time, take :class:`~bmsfed_app.engine.RayGrid`. Parameters are those of
    :class:`~bmsfed_app.engine.base.SimulationGrid`.

    Attributes
    ----------
    working : bool
        Whether a client is at work now.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._queue: dict[str, tuple[Message, Work]] = {}
        self.working = False

    def accept(self, message: Message) -> None:
        """Queue a message; a node that does not exist never answers."""
        if 1 <= message.metadata.dst_node_id <= self.clients.total:
            with self._lock:
                self._queue[message.metadata.message_id] = message, self.describe(message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let clients work for a moment, and return the replies there are."""
        with self._lock:
            until = time.monotonic() + _SLICE
            while self._queue and time.monotonic() < until:
                self.working = True
                try:
                    answered = self.clients.answer(self._next())
                finally:
                    self.working = False
                for done in answered:
                    self._finish(done)
            return self._ready(message_ids)

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Drop messages that nobody waits for any more."""
        with self._lock:
            for message_id in message_ids:
                self._queue.pop(message_id, None)
                self._replies.pop(message_id, None)

    def _next(self) -> list[Message]:
        """Take the message that has waited longest, and others of its kind to go with it."""
        first, work = next(iter(self._queue.values()))
        found = [first]
        if self.pack > 1:
            alike = (m for m, w in self._queue.values() if w.kind == work.kind)
            nodes: set[int] = set()
            found = []
            for message in alike:
                if len(found) < self.pack and message.metadata.dst_node_id not in nodes:
                    nodes.add(message.metadata.dst_node_id)
                    found.append(message)
        for message in found:
            del self._queue[message.metadata.message_id]
        return found
