"""Who may take part: reads what nodes say of themselves, and admits or refuses them."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from .fleet import Fleet
from .protocol import PROTOCOL_VERSION, ClientInfo, Enrolment, unpack_enrolment
from .transport import Answer

if TYPE_CHECKING:
    from .base import ModalityStrategy

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


class Registrar:
    """Admits nodes to a fleet.

    Attributes
    ----------
    fleet : Fleet
        Everybody who was admitted.
    foreigners : bool
        Whether clients of other apps are served; if not, they are refused.
    started : bool
        Whether the federation is under way: from then on a client that the method cannot use is
        refused, before it ends the run.
    """

    def __init__(self, strategy: ModalityStrategy) -> None:
        self.strategy = strategy
        self.fleet = Fleet()
        self.foreigners = False
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
            info = enrolment.info
            self.fleet.enrol(node_id, info)
            if not enrolment.native:
                self.fleet.foreign.add(node_id)
            known = self.strategy.state.clients
            if info.client_id not in known:  # one that came back is known already
                self._joined.append(info)
            known[info.client_id] = info
        except (ValueError, TypeError) as error:
            self._refused[f"node {node_id}"] = str(error)
            if self.foreigners:  # our own app has callbacks for it
                log.warning("node %s is left out: %s", node_id, error)

    def _read(self, node_id: int, answer: Answer) -> Enrolment:
        try:
            if answer.content is None:
                if self.foreigners and answer.plain:
                    return self._plain(node_id)
                raise ValueError(answer.error)
            enrolment = unpack_enrolment(answer.content)
            if not enrolment.info.modalities and not enrolment.native:
                everything = self.strategy.state.modalities
                info = dataclasses.replace(enrolment.info, modalities=everything)
                enrolment = dataclasses.replace(enrolment, info=info)
            self._check(enrolment)
        except KeyError as error:
            reason = f"its answer lacks {error}: does it run this app?"
            self.fleet.refuse(node_id, reason)
            raise ValueError(reason) from None
        except (ValueError, TypeError) as error:
            self.fleet.refuse(node_id, str(error))
            raise
        return enrolment

    def _plain(self, node_id: int) -> Enrolment:
        """Serve a node that does not know us as one that holds everything, as FedAvg does."""
        if not self.fleet.plain:
            log.warning(
                "node %s does not say which modalities it holds: it, and others like it, is served "
                "as one that holds all of %s and trains the whole model; add "
                "strategies.client.ModalityMod to its ClientApp to select its modalities",
                node_id,
                list(self.strategy.state.modalities),
            )
        self.fleet.plain.add(node_id)
        info = ClientInfo(f"node-{node_id}", self.strategy.state.modalities)
        return Enrolment(info, PROTOCOL_VERSION, "", native=False)

    def _check(self, enrolment: Enrolment) -> None:
        info = enrolment.info
        if not (enrolment.native or self.foreigners):
            raise ValueError(
                f"client '{info.client_id}' runs another app than the server: run the server's, or "
                "serve it by the strategy's `start`"
            )
        found = (enrolment.protocol, enrolment.app_version)
        ours = (PROTOCOL_VERSION, self.strategy.app_version or enrolment.app_version)
        if found != ours:
            raise ValueError(
                f"client '{info.client_id}' runs version {found[1]} (protocol {found[0]}), the "
                f"server {ours[1]} (protocol {ours[0]}): install the same version on both"
            )
        model = self.strategy.state.modalities
        if not info.modalities or (model and set(info.modalities) - set(model)):
            data = (
                "data of this experiment's data set" if enrolment.native else "modalities of these"
            )
            raise ValueError(
                f"client '{info.client_id}' holds {list(info.modalities)}, the model has "
                f"{list(model)}: give it {data}"
            )
        if self.started and (reason := self.strategy.unsupported(info)):
            raise ValueError(reason)
