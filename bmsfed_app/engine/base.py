"""What the engines have in common: nodes, messages that wait, answers that wait."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Self

from flwr.app import Message
from flwr.clientapp import ClientApp

from bmsfed_app.engine.work import Clients, Describe, Done, EngineError, Together, by_type
from strategies._flower import CLIENT_RAISED
from strategies.local_grid import LocalGrid

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


class SimulationGrid(LocalGrid):
    """A grid of simulated clients, which are numbers until they are asked for something.

    Each runs the same ClientApp. Its node config holds ``partition-id`` and ``num-partitions``, as
    in Flower's simulation, and its context's state lasts as long as the grid.

    Parameters
    ----------
    client_app : ClientApp
        With its mods.
    num_clients : int
        Clients; the client with ``partition-id`` i has node id i + 1.
    run_config : mapping, optional
        The run config in clients' contexts.
    together : callable, optional
        ``together(messages, contexts)`` answers several messages of one kind of work in one call.
    pack : int, default 1
        So many messages of one kind, at most, are answered together.
    describe : callable, optional
        Tells the :class:`Work` that a message asks for; by default messages of one type are alike.

    Raises
    ------
    EngineError
        If there is no client.
    """

    #: Whether whoever is asked answers, sooner or later: there is nobody that could be late.
    all_answer = True
    #: All nodes are there from the start: nobody waits for more.
    complete = True

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        run_config: Mapping[str, Any] | None = None,
        together: Together | None = None,
        pack: int = 1,
        describe: Describe = by_type,
    ) -> None:
        super().__init__()
        if num_clients < 1:
            raise EngineError(f"{num_clients} clients: a federation needs at least one")
        self.clients = Clients(client_app, num_clients, dict(run_config or {}), together)
        self.pack, self.describe = pack, describe
        # Flower's classic interface asks from several threads.
        self._lock = threading.RLock()
        self._replies: dict[str, Message] = {}
        self._told: set[str] = set()

    def get_node_ids(self) -> Iterable[int]:
        """Return the clients' node ids, from 1."""
        return list(range(1, self.clients.total + 1))

    def close(self) -> None:
        """Let go of all that the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _finish(self, done: Done) -> None:
        """Keep an answer until it is pulled, and show a new kind of traceback."""
        self._replies[done.reply.metadata.reply_to_message_id] = done.reply
        if done.trace and (last := done.trace.rstrip().rpartition("\n")[0]) not in self._told:
            self._told.add(last)
            log.error("%s\n%s", CLIENT_RAISED, done.trace)

    def _ready(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]
