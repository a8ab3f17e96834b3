"""Whose client id is whose: what Flower knows of a node's identity, and what follows from it.

Every SuperNode signs its messages with a key, and a ServerApp sees the public one
(``Grid.get_nodes``), together with when the node registered and when it last connected. Where the
SuperLink asks for authentication (``--enable-supernode-auth``), keys are registered by its operator
and outlast connections; where it does not, a SuperNode draws a key and registers itself whenever
it is started, so that its key says nothing of who it is. A ServerApp is not told which of the two
holds, but it shows: a node that registers itself connects in the same moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from .transport import GridTransport, Transport

#: How public keys begin; nodes of a simulation have random bytes, or nothing, in their place.
_KEY = b"-----BEGIN"

#: Seconds between registering and connecting up to which a node has registered itself.
_AT_ONCE = 1.0

CLAIMS = (
    "client ids are only claims: the SuperLink lets every node register itself, so a node that "
    "says another's client-id takes its place once that one is gone. Start the SuperLink with "
    "--enable-supernode-auth (deploy/), and each id belongs to the key that first came with it"
)


@dataclass(frozen=True)
class Presence:
    """A connected node.

    Attributes
    ----------
    node_id : int
    key : str
        Its public key's fingerprint; empty where nodes have none, as in simulations.
    since : str
        When it connected, as the SuperLink says it; another value is another connection.
    at_once : bool
        Whether it connected in the moment in which it was registered.
    """

    node_id: int
    key: str = ""
    since: str = ""
    at_once: bool = False


def presences(transport: Transport) -> list[Presence]:
    """Return the nodes that are connected now, with all that is known of them."""
    if not isinstance(transport, GridTransport):
        return [Presence(node_id) for node_id in transport.node_ids()]
    found = []
    for node in transport.grid.get_nodes():
        known = bytes(node.public_key).startswith(_KEY)
        key = sha256(node.public_key).hexdigest()[:32] if known else ""
        since = node.last_activated_at
        found.append(Presence(node.node_id, key, since, _at_once(node.registered_at, since)))
    return found


def _at_once(registered: str, activated: str) -> bool:
    try:
        between = datetime.fromisoformat(activated) - datetime.fromisoformat(registered)
    except ValueError:  # not said
        return False
    return abs(between.total_seconds()) < _AT_ONCE


@dataclass
class Identities:
    """Which key each client id is bound to.

    A client id is bound to the key of the node that first enrols with it, if keys outlast
    connections. A binding holds until it is released, also where the client is gone.

    Attributes
    ----------
    bound : dict
        Key by client id: the same object as ``ServerState.bindings``.
    authenticated : bool, optional
        Whether keys are registered by the SuperLink's operator; None: they are taken to be unless
        a node is seen that registered itself.
    """

    bound: dict[str, str]
    authenticated: bool | None = None
    _self_registered: bool = False
    _keyed: bool = False
    _made: set[str] = field(default_factory=set)

    @property
    def outlast(self) -> bool:
        """Whether keys outlast connections."""
        if self.authenticated is None:
            return not self._self_registered
        return self.authenticated

    @property
    def only_claims(self) -> bool:
        """Whether nodes come over a network and anybody may say to be anybody."""
        return self._keyed and not self.outlast

    def look(self, nodes: Iterable[Presence]) -> None:
        """Take note of who is connected."""
        keyed = [node for node in nodes if node.key]
        self._keyed |= bool(keyed)
        self._self_registered |= any(node.at_once for node in keyed)
        if not self.outlast:  # what was bound before that showed was bound to passing keys
            for client_id in self._made:
                self.bound.pop(client_id, None)
            self._made.clear()

    def claim(self, client_id: str, node: Presence) -> None:
        """Let a node speak for a client id, and bind the id to its key if it is free.

        Raises
        ------
        ValueError
            If the id is bound to another key.
        """
        owner = self.bound.get(client_id)
        if owner is not None and owner != node.key:
            raise ValueError(
                f"client id '{client_id}' belongs to the node with key {owner[:12]}, this one has "
                f"{node.key[:12] or 'none'}: give the node its own client-id, or, if it replaces "
                f"the other, stop the run and release the id with `bmsfed nodes forget RUN "
                f"{client_id}`"
            )
        if owner is None and node.key and self.outlast:
            self.bound[client_id] = node.key
            self._made.add(client_id)
