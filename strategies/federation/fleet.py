"""Who is there: clients by their stable id, and the node each one is reached through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..callbacks import Connections
from ..messages import ClientInfo, Update
from .dialects import Dialect
from .identity import Identities, Presence

#: Rounds after which a refused node is asked again, at the latest.
_LONGEST_REST = 16


@dataclass
class Refusal:
    """Why a node may not take part, how often it was refused, and when it is asked again."""

    reason: str
    times: int = 1
    again: int = 0


@dataclass
class Fleet:
    """The clients that have enrolled, and which of them are connected.

    Flower's node ids are stable where nodes are authenticated, and drawn for every connection
    where they are not (see :mod:`strategies.federation.identity`). Everything that is remembered
    about a client is therefore keyed by client id, and only this class knows nodes.

    Attributes
    ----------
    clients : dict
        Every client known, by client id: the same object as ``ServerState.clients``, so that what
        is learnt of a client later is known here.
    identities : Identities
        Which node may speak for which client id.
    nodes : dict
        The node through which a client was last reached, by client id.
    refusals : dict
        Nodes that may not take part, by node id.
    dialects : dict
        How to speak with each node that may take part, by node id.
    connected : dict
        The nodes that are connected, by node id.
    round : int
        The round of the last look.
    """

    clients: dict[str, ClientInfo]
    identities: Identities = field(default_factory=lambda: Identities({}))
    nodes: dict[str, int] = field(default_factory=dict)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    connected: dict[int, Presence] = field(default_factory=dict)
    dialects: dict[int, Dialect] = field(default_factory=dict)
    round: int = 0
    _settled: set[int] = field(default_factory=set)  # have enrolled since they connected
    _speaks_for: dict[int, str] = field(default_factory=dict)  # the reverse of `nodes`

    @property
    def refused(self) -> dict[int, str]:
        """Why nodes may not take part, by node id."""
        return {node_id: refusal.reason for node_id, refusal in self.refusals.items()}

    def connect(self, nodes: Iterable[Presence], server_round: int = 0) -> list[int]:
        """Note which nodes are connected now; return those to ask who they are, sorted.

        These are nodes that have yet to enrol, also if they had before they connected anew, and
        those that were refused 1, 2, 4, …, 16 rounds ago.
        """
        before, self.round = self.connected, server_round
        self.connected = {node.node_id: node for node in nodes}
        self.identities.look(self.connected.values())
        lasting = {n for n, node in self.connected.items() if before.get(n) == node}
        self._settled &= lasting
        self.refusals = {n: r for n, r in self.refusals.items() if n in lasting}
        unsettled = self.connected.keys() - self._settled
        waiting = {n for n, r in self.refusals.items() if r.again > server_round}
        return sorted(unsettled - waiting)

    def enrol(self, node_id: int, info: ClientInfo, dialect: Dialect) -> None:
        """Admit a client, or re-admit one that came back.

        Raises
        ------
        ValueError
            If the client id is another node's.
        """
        known = self.nodes.get(info.client_id)
        presence = self.connected.get(node_id, Presence(node_id))
        self.identities.claim(info.client_id, presence)
        if known is not None and known != node_id and known in self.connected:
            raise ValueError(
                f"client id '{info.client_id}' is already taken by a connected node: "
                "give each node its own client-id"
            )
        self._forget_node(node_id)
        self.clients[info.client_id] = info
        if known is not None:
            self._forget_node(known)
        self.nodes[info.client_id], self._speaks_for[node_id] = node_id, info.client_id
        self.dialects[node_id] = dialect
        self.refusals.pop(node_id, None)
        self._settled.add(node_id)

    def refuse(self, node_id: int, reason: str) -> bool:
        """Keep a node out until it is asked again; return whether this is news."""
        before = self.refusals.get(node_id)
        times = before.times + 1 if before else 1
        rest = min(2 ** (times - 1), _LONGEST_REST)
        self._forget_node(node_id)
        self.refusals[node_id] = Refusal(reason, times, self.round + rest)
        return before is None or before.reason != reason

    def contradiction(self, node_id: int, client_id: str, update: Update) -> str | None:
        """Say how an answer differs from what its node enrolled as, or None.

        A node that does so stays out until it has enrolled anew.

        Parameters
        ----------
        node_id : int
        client_id : str
            The client that was asked through this node.
        update : Update
            The answer; one that says nothing of its sender cannot differ.
        """
        enrolled = self.clients.get(client_id)
        if enrolled is None or not update.sender:
            return None
        if update.sender != client_id:
            fault = f"its node enrolled as '{client_id}' and answers as '{update.sender}'"
        elif set(update.held) != set(enrolled.modalities):
            fault = f"it enrolled with {list(enrolled.modalities)} and holds {list(update.held)}"
        elif not set(update.modalities) <= set(update.held):
            fault = f"it trained {list(update.modalities)} and holds {list(update.held)}"
        else:
            return None
        if self._speaks_for.get(node_id) == client_id:
            self._forget_node(node_id)
            self._settled.discard(node_id)
        return f"{fault}: it is asked anew"

    def doubt(self, node_id: int) -> None:
        """Ask a node anew who it is, as its answer was of no use; until then it takes part."""
        self._settled.discard(node_id)

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

    def _forget_node(self, node_id: int) -> None:
        """Reach nobody through a node any more."""
        if (client_id := self._speaks_for.pop(node_id, None)) is not None:
            del self.nodes[client_id]
