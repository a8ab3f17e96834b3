"""Who is there: clients by their stable id, and the node each one is reached through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..callbacks import Connections
from ..messages import ClientInfo
from .dialects import Dialect


@dataclass
class Fleet:
    """The clients that have enrolled, and which of them are connected.

    Flower draws a new node id for every connection. Everything that is remembered about a client
    is therefore keyed by client id, and only this class knows nodes.

    Attributes
    ----------
    clients : dict
        Every client known, by client id: the same object as ``ServerState.clients``, so that what
        is learnt of a client later is known here.
    nodes : dict
        The node through which a client was last reached, by client id.
    refused : dict
        Nodes that may not take part, with the reason, by node id.
    dialects : dict
        How to speak with each node that may take part, by node id.
    """

    clients: dict[str, ClientInfo]
    nodes: dict[str, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    connected: set[int] = field(default_factory=set)
    dialects: dict[int, Dialect] = field(default_factory=dict)

    def connect(self, node_ids: Iterable[int]) -> list[int]:
        """Note which nodes are connected now; return those that have yet to enrol, sorted."""
        self.connected = set(node_ids)
        return sorted(self.connected - set(self.nodes.values()) - set(self.refused))

    def enrol(self, node_id: int, info: ClientInfo, dialect: Dialect) -> None:
        """Admit a client, or re-admit one that came back through another node.

        Raises
        ------
        ValueError
            If another connected node already speaks for this client id.
        """
        known = self.nodes.get(info.client_id)
        if known is not None and known != node_id and known in self.connected:
            raise ValueError(
                f"client id '{info.client_id}' is already taken by a connected node: "
                "give each node its own client-id"
            )
        self.clients[info.client_id] = info
        self.nodes[info.client_id] = node_id
        self.dialects[node_id] = dialect

    def refuse(self, node_id: int, reason: str) -> None:
        """Keep a node out for the rest of the run."""
        self.refused[node_id] = reason

    def online(self) -> list[ClientInfo]:
        """Return the clients that are connected now, sorted by client id."""
        return [self.clients[c] for c in sorted(self.nodes) if self.nodes[c] in self.connected]

    def connections(self) -> Connections:
        """Return who is there now, for callbacks."""
        return Connections(
            dict(self.clients),
            {c: n for c, n in self.nodes.items() if n in self.connected},
            {n: reason for n, reason in self.refused.items() if n in self.connected},
        )
