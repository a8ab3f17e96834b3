"""Waiting for clients, and saying who is there, who is not, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .errors import FederationError
from .fleet import Fleet
from .transport import Interrupted, Transport
from .waiting import Patience

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: Seconds between looks, and between lines in the log.
_LOOK, _TELL = 0.1, 10.0
_NAMED = 10  # clients or nodes per line


@dataclass
class Gathering:
    """Clients that are waited for.

    Parameters
    ----------
    fleet : Fleet
    transport : Transport
    patience : Patience
    enrol : callable
        Asks the nodes that are new who they are.
    """

    fleet: Fleet
    transport: Transport
    patience: Patience
    enrol: Callable[[], None]
    _told: str = ""
    _told_at: float = float("-inf")

    def wait_for(self, min_clients: int) -> None:
        """Wait until enough clients have enrolled; the number of nodes must also have settled.

        Raises
        ------
        FederationError
            If they have not in time, or cannot: it tells who is there and who was refused, and why.
        Interrupted
            If the federation was asked to stop.
        """
        clock, seconds = self.patience.waiting.clock, self.patience.connections
        started = self._told_at = clock.monotonic()
        seen = -1
        while True:
            count = len(set(self.transport.node_ids()) - set(self.fleet.refused))
            settled, over = count == seen, clock.monotonic() > started + seconds
            tell = clock.monotonic() >= self._told_at + _TELL
            last_look = over or (settled and self.transport.complete)
            if last_look or tell or (settled and count >= max(min_clients, 1)):
                self.enrol()
                if len(self.fleet.online()) >= max(min_clients, 1):
                    return
            if self.patience.stop.is_set():
                raise Interrupted("stopped on request")
            if last_look:
                within = f"connected within {seconds:g} s" if over else "can take part"
                raise FederationError(
                    f"{self._here(min_clients, within)}{self._remedy(min_clients)}"
                )
            if tell:
                self.tell(f"waiting for clients: {self._here(min_clients, 'connected')}")
            seen = count
            clock.sleep(_LOOK)

    def tell(self, text: str) -> None:
        """Put a line into the log, unless it was the last one."""
        self._told_at = self.patience.waiting.clock.monotonic()
        if text != self._told:
            self._told = text
            log.info("%s", text)

    def due(self) -> bool:
        """Whether another line may be told."""
        return self.patience.waiting.clock.monotonic() >= self._told_at + _TELL

    def missing(self) -> str:
        """Say who is not there of those known, and who was refused, in lines of their own."""
        online = {c.client_id for c in self.fleet.online()}
        away = sorted(set(self.fleet.clients) - online)
        lines = [f"not connected: {_names(away)}"] if away else []
        by_reason: dict[str, list[str]] = {}
        for node, reason in sorted(self.fleet.refused.items()):
            if node in self.fleet.connected:
                by_reason.setdefault(reason, []).append(str(node))
        for reason, nodes in sorted(by_reason.items()):
            which = "node" if len(nodes) == 1 else "nodes"
            how = "is silent" if reason.startswith("no answer") else "was refused"
            how = how if len(nodes) == 1 else how.replace("is", "are").replace("was", "were")
            lines.append(f"{which} {_names(nodes)} {how}: {reason}")
        return "".join(f"\n  {line}" for line in lines)

    def _here(self, min_clients: int, how: str) -> str:
        names = _names([c.client_id for c in self.fleet.online()])
        here = f" ({names})" if names else ""
        return f"{len(self.fleet.online())} of {min_clients} clients {how}{here}{self.missing()}"

    def _remedy(self, min_clients: int) -> str:
        more = (
            "start more SuperNodes (in a simulation: --federation-config "
            f"'num-supernodes={min_clients}') or wait for fewer"
        )
        if set(self.fleet.refused) & self.fleet.connected.keys():
            return f"\nmend what is said of these nodes, {more}"
        return f"{chr(10) if self.missing() else ': '}{more}"


def _names(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
