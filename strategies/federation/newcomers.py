"""Who is new while a federation is under way: asked and measured beside its rounds.

A question goes out together with a round's tasks, and whoever has answered by the end of the round
takes part in the next. Nobody waits for such an answer, so a node that is slow, hangs or may not
take part holds up nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from .aside import aside_of
from .enrolment import ask_enrolment
from .identity import presences
from .registrar import Registrar
from .transport import Answer, Outgoing, Transport, quiet_about_plain_nodes
from .waiting import Patience
from .wire import ENROL


class Newcomers:
    """Nodes that have yet to say who they are, and clients that have yet to be measured.

    Parameters
    ----------
    registrar : Registrar
        Admits nodes.
    transport : Transport
    patience : Patience
        How long simulated clients are waited for, or others over a transport that can only wait.
    """

    def __init__(self, registrar: Registrar, transport: Transport, patience: Patience) -> None:
        self.registrar, self.fleet, self.transport = registrar, registrar.fleet, transport
        self.patience = patience
        self._questions = aside_of(transport, patience.connections)
        self._probes = aside_of(transport, patience.answers)

    @property
    def question(self) -> Outgoing:
        """The question who a node is."""
        return ENROL, ask_enrolment(self.registrar.dialects.native.settings)

    def look(self, server_round: int) -> list[int]:
        """Note who is connected, and return the nodes that are to be asked and have not been."""
        before = dict(self.fleet.connected)
        due = self.fleet.connect(presences(self.transport), server_round)
        changed = [n for n, node in before.items() if self.fleet.connected.get(n) != node]
        for aside in (self._questions, self._probes):
            aside.drop(changed)
        return [node_id for node_id in due if node_id not in self._questions.pending()]

    def ask(self, server_round: int) -> None:
        """Ask whoever is new, came back or was refused a while ago."""
        if due := self.look(server_round):
            self._questions.send(dict.fromkeys(due, self.question), str(server_round))

    def hear(self) -> None:
        """Admit or refuse those that have said who they are."""
        with quiet_about_plain_nodes():
            answers = self._questions.collect(self.patience.connections)
        for node_id, answer in sorted(answers.items()):
            self.registrar.admit(node_id, answer)

    def measure(self, outgoing: Mapping[int, Outgoing], server_round: int) -> None:
        """Have clients measured beside the round."""
        self._probes.send(outgoing, str(server_round))

    def measured(self) -> dict[int, Answer]:
        """Return the answers of clients that have been measured, by node id."""
        return self._probes.collect(self.patience.answers)

    def being_measured(self) -> set[int]:
        """Return the nodes that have been asked to measure and have not answered."""
        return self._probes.pending()
