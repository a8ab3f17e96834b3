"""Sending tasks over Flower's ``Grid`` and collecting the answers as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from .protocol import payload_bytes

#: Seconds between looks at the grid: short at first, longer where nothing comes (deployments).
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.2


class Interrupted(RuntimeError):
    """The federation was asked to stop."""


@dataclass
class Answer:
    """One node's answer, or why there is none."""

    content: RecordDict | None
    error: str = ""
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


def exchange(
    grid: Grid,
    contents: Mapping[int, RecordDict],
    message_type: str,
    *,
    group: str,
    timeout: float,
    on_reply: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, Answer]:
    """Send one message to each node and wait for all answers.

    Parameters
    ----------
    grid : Grid
        Flower's grid, or a :class:`strategies.testing.FakeGrid`.
    contents : mapping
        Message content by node id.
    message_type : str
        ``"query.enrol"``, ``"query.probe"`` or ``"train"``.
    group : str
        Flower's group id; the round, by custom.
    timeout : float
        Seconds to wait; a node silent until then gets an answer with ``error``.
    on_reply : callable, optional
        Called with the number of answers so far.
    should_stop : callable, optional
        Asked at every look; True raises.

    Raises
    ------
    Interrupted
        If ``should_stop`` said so.
    """
    started = time.monotonic()
    answers: dict[int, Answer] = {}
    waiting: dict[str, int] = {}
    for node_id, content in contents.items():
        down = payload_bytes(content)
        message = Message(content, node_id, message_type, group_id=group)
        ids = list(grid.push_messages([message]))
        sent = bool(ids and ids[0])  # Flower leaves out, or puts None for, what it cannot send
        if sent:
            waiting[ids[0]] = node_id
        silent = f"no answer within {timeout:g} s"
        answers[node_id] = Answer(None, silent if sent else "could not be sent to its node", down)
    wait = _FIRST_WAIT
    while waiting and time.monotonic() - started < timeout:
        if should_stop():
            raise Interrupted("stopped on request")
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            node_id = waiting.pop(reply.metadata.reply_to_message_id)
            _read(reply, answers[node_id], time.monotonic() - started)
            on_reply(len(contents) - len(waiting))
        if waiting:
            wait = _FIRST_WAIT if replies else min(wait * 1.5, _LONGEST_WAIT)
            time.sleep(wait)
    return answers


def _read(reply: Message, answer: Answer, seconds: float) -> None:
    answer.seconds = seconds
    if reply.has_error():
        answer.error = _one_line(reply.error.reason or f"error code {reply.error.code}")
        return
    answer.content = reply.content
    answer.bytes_up = payload_bytes(reply.content)
    answer.error = ""


def _one_line(reason: str) -> str:
    """Flower wraps a client's exception in several lines of its own; keep what the client said."""
    text = " ".join(reason.split())
    return text.rpartition("Message: ")[2].rstrip("'>") or text
