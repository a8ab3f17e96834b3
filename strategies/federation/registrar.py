"""Who may take part: reads what nodes say of themselves, and admits or refuses them."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

from ..decisions import Decisions
from ..messages import ClientInfo
from .dialects import Modded, Native, Plain
from .enrolment import Enrolment, unpack_enrolment
from .fleet import Fleet
from .identity import Identities
from .transport import Answer
from .wire import PROTOCOL_VERSION

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


@dataclass(frozen=True)
class Dialects:
    """How each kind of client is spoken with; None for kinds that are refused."""

    native: Native
    modded: Modded | None = None
    plain: Plain | None = None


class Registrar:
    """Admits nodes to a fleet.

    Attributes
    ----------
    fleet : Fleet
        Everybody who was admitted.
    started : bool
        Whether the federation is under way: from then on a client that the method cannot use is
        refused, before it ends the run.
    """

    def __init__(
        self,
        decisions: Decisions,
        dialects: Dialects,
        app_version: str | None,
        authenticated: bool | None = None,
    ) -> None:
        self.decisions, self.dialects, self.app_version = decisions, dialects, app_version
        state = decisions.state
        self.fleet = Fleet(state.clients, Identities(state.bindings, authenticated))
        self.started = False
        self._joined: list[ClientInfo] = []
        self._refused: dict[str, str] = {}

    def news(self) -> tuple[list[ClientInfo], dict[str, str]]:
        """Return who joined, by client id, and who was refused and why, since the last call."""
        news = sorted(self._joined, key=lambda c: c.client_id), self._refused
        self._joined, self._refused = [], {}
        return news

    def admit(self, node_id: int, answer: Answer) -> None:
        """Admit a node by its answer to the question who it is, or note why not."""
        try:
            enrolment = self._read(node_id, answer)
            self._enrol(node_id, enrolment, plain=answer.content is None)
        except (ValueError, TypeError) as error:
            if not self.fleet.refuse(node_id, str(error)):
                return
            self._refused[f"node {node_id}"] = str(error)
            if self.dialects.plain is not None:  # our own app has callbacks for it
                log.warning("node %s is left out: %s", node_id, error)

    def _enrol(self, node_id: int, enrolment: Enrolment, *, plain: bool) -> None:
        info = enrolment.info
        known = self.fleet.clients.get(info.client_id)
        foreign = self.dialects.plain if plain else self.dialects.modded
        dialect = self.dialects.native if enrolment.native else foreign
        assert dialect is not None  # else it was refused
        if known is not None and not enrolment.native and info.num_samples == 1:
            # It did not say how many; its answers may have.
            info = dataclasses.replace(info, num_samples=known.num_samples)
        self.fleet.enrol(node_id, info, dialect)
        if known is None:  # one that came back is known already
            self._joined.append(info)
        elif set(known.modalities) != set(info.modalities):
            self.decisions.forget(info.client_id)
            self._joined.append(info)
        elif enrolment.native and known != info:  # the same modalities of other samples
            self.decisions.forget(info.client_id, measured_only=True)

    def _read(self, node_id: int, answer: Answer) -> Enrolment:
        try:
            if answer.content is None:
                if self.dialects.plain is not None and answer.plain:
                    return self._plain(node_id)
                raise ValueError(answer.error)
            enrolment = unpack_enrolment(answer.content)
            if not enrolment.info.modalities and not enrolment.native:
                everything = self.decisions.state.modalities
                info = dataclasses.replace(enrolment.info, modalities=everything)
                enrolment = dataclasses.replace(enrolment, info=info)
            self._check(enrolment)
        except KeyError as error:
            raise ValueError(f"its answer lacks {error}: does it run this app?") from None
        return enrolment

    def _plain(self, node_id: int) -> Enrolment:
        """Serve a node that does not know us as one that holds everything, as FedAvg does."""
        if self.dialects.plain not in self.fleet.dialects.values():
            log.warning(
                "node %s does not say which modalities it holds: it, and others like it, is served "
                "as one that holds all of %s and trains the whole model; add "
                "strategies.client.ModalityMod to its ClientApp to select its modalities",
                node_id,
                list(self.decisions.state.modalities),
            )
        info = ClientInfo(f"node-{node_id}", self.decisions.state.modalities)
        return Enrolment(info, PROTOCOL_VERSION, "", native=False)

    def _check(self, enrolment: Enrolment) -> None:
        info = enrolment.info
        if not enrolment.native and self.dialects.modded is None:
            raise ValueError(
                f"client '{info.client_id}' runs another app than the server: run the server's, or "
                "serve it by the strategy's `start`"
            )
        found = (enrolment.protocol, enrolment.app_version)
        ours = (PROTOCOL_VERSION, self.app_version or enrolment.app_version)
        if found != ours:
            raise ValueError(
                f"client '{info.client_id}' runs version {found[1]} (protocol {found[0]}), the "
                f"server {ours[1]} (protocol {ours[0]}): install the same version on both"
            )
        model = self.decisions.state.modalities
        if not info.modalities or (model and set(info.modalities) - set(model)):
            data = (
                "data of this experiment's data set" if enrolment.native else "modalities of these"
            )
            raise ValueError(
                f"client '{info.client_id}' holds {list(info.modalities)}, the model has "
                f"{list(model)}: give it {data}"
            )
        if self.started and (reason := self.decisions.unsupported(info)):
            raise ValueError(reason)
