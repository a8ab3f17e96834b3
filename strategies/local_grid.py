"""What grids without Flower's processes have in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ._flower import empty_run, set_message_id
from ._flower import pretend_to_be_a_task as act_as_a_run

#: Seconds between looks where pulling does not wait by itself.
_PAUSE = 0.01


class LocalGrid(Grid):
    """A grid whose clients are reached without a SuperLink.

    A subclass says which nodes there are (``get_node_ids``), takes messages (:meth:`accept`) and
    returns replies (``pull_messages``).
    """

    def __init__(self) -> None:
        self._run = empty_run()
        act_as_a_run()

    @abstractmethod
    def accept(self, message: Message) -> None:
        """Take one message, which has its id."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Give each message an id, and take it."""
        ids = []
        for message in messages:
            set_message_id(message, str(uuid4()))
            ids.append(message.metadata.message_id)
            self.accept(message)
        return ids

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Drop messages that nobody waits for any more; here nothing is under way."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and collect their replies, at most for ``timeout`` seconds."""
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting:
            late = deadline is not None and time.monotonic() >= deadline
            found = list(self.pull_messages(waiting))
            replies += found
            waiting -= {r.metadata.reply_to_message_id for r in found}
            if late:
                break
            if waiting and not found:
                time.sleep(_PAUSE)
        if waiting:
            self.withdraw(waiting)
        return replies

    def set_run(self, run: Any) -> None:
        """Belong to a run."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run that the grid belongs to; one without any data, unless it was set."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as the classic interface makes them."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
