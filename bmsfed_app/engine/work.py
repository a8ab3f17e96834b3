"""What an engine knows of the work that messages ask for, and what clients make of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

#: Answers many messages in one call, each with its client's context, in their order; None leaves
#: one to the app.
Together = Callable[[Sequence[Message], Sequence[Context]], list[Message | None]]


class EngineError(ValueError):
    """An engine cannot do what it is asked for; the message says why, and the remedy."""


@dataclass(frozen=True)
class Work:
    """What one message asks for.

    Attributes
    ----------
    kind : hashable
        Messages of one kind take time in proportion to their size, and may be answered together.
    size : float
        How much there is to do, in any unit: samples times epochs, say.
    """

    kind: Hashable
    size: float = 1.0


#: Tells the work that a message asks for.
Describe = Callable[[Message], Work]


def by_type(message: Message) -> Work:
    """Take all messages of a type for alike."""
    return Work(message.metadata.message_type)


@dataclass
class Done:
    """One client's answer.

    Attributes
    ----------
    reply : Message
    seconds : float
        What it took.
    trace : str
        The traceback, where the client's app raised.
    """

    reply: Message
    seconds: float = 0.0
    trace: str = ""


@dataclass
class Clients:
    """The clients' side of an engine: one app, and a context per client that asked for one.

    Attributes
    ----------
    app : ClientApp
    total : int
        Clients in all; their node ids count from 1.
    run_config : dict
        What Flower would read from ``pyproject.toml``.
    together : callable, optional
        Answers several messages of one kind in one call; without it the app does, one by one.
    states : dict
        What clients' contexts keep from message to message, by node id.
    """

    app: ClientApp
    total: int
    run_config: dict[str, Any] = field(default_factory=dict)
    together: Together | None = None
    states: dict[int, RecordDict] = field(default_factory=dict)

    def answer(self, messages: Sequence[Message]) -> list[Done]:
        """Let clients answer, one message each; what an app raises becomes an error reply."""
        if self.together is not None and len(messages) > 1:
            return self._at_once(self.together, messages)
        return [self._alone(message) for message in messages]

    def _alone(self, message: Message) -> Done:
        started = time.perf_counter()
        context = self._context(message)
        try:
            done = Done(_checked(self.app(message, context), message))
        except Exception as error:
            done = Done(failure(message, str(error) or type(error).__name__))
            done.trace = traceback.format_exc()
        self._keep(context)
        done.seconds = time.perf_counter() - started
        return done

    def _at_once(self, together: Together, messages: Sequence[Message]) -> list[Done]:
        started = time.perf_counter()
        contexts = [self._context(message) for message in messages]
        replies = together(messages, contexts)
        for context in contexts:
            self._keep(context)
        answered = sum(reply is not None for reply in replies)
        seconds = (time.perf_counter() - started) / max(answered, 1)
        pairs = zip(messages, replies, strict=True)
        return [self._alone(m) if r is None else Done(r, seconds) for m, r in pairs]

    def _context(self, message: Message) -> Context:
        node = message.metadata.dst_node_id
        config: dict[str, Any] = {"partition-id": node - 1, "num-partitions": self.total}
        state = self.states.get(node, RecordDict())
        return Context(message.metadata.run_id, node, config, state, dict(self.run_config))

    def _keep(self, context: Context) -> None:
        if context.state:
            self.states[context.node_id] = context.state
        else:
            self.states.pop(context.node_id, None)


def _checked(reply: object, message: Message) -> Message:
    """Refuse what is no reply to a message: nobody could be told whose it is."""
    if not isinstance(reply, Message):
        raise TypeError(
            f"the ClientApp returned {type(reply).__name__}, not a Message: end its function with "
            "`return Message(content, reply_to=message)`"
        )
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError(
            "the ClientApp returned a Message that answers another one: make it with "
            "`Message(content, reply_to=message)`"
        )
    return reply


def failure(message: Message, reason: str) -> Message:
    """Return the reply of a client that could not answer."""
    return Message(Error(code=0, reason=reason), reply_to=message)
