"""One federated run: who is there, what is sent, which answers count.

It knows neither how messages travel (a :class:`~strategies.federation.transport.Transport` does)
nor what kinds of clients there are (a :class:`~strategies.federation.dialects.Dialect` does), nor
what the method decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from ..callbacks import Callback, ClientReport, RoundReport
from ..decisions import Decisions
from ..messages import Assignment, ClientInfo, Kind, Task, Update
from .dialects import Dialect
from .identity import CLAIMS
from .newcomers import Newcomers
from .registrar import Dialects, Registrar
from .transport import Answer, Interrupted, Outgoing, Transport, quiet_about_plain_nodes
from .validation import find_fault, shapes_of
from .wire import Encoder

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


class FederationError(RuntimeError):
    """The federation cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Sent:
    """One message that went to a client, and how its answer is to be read."""

    node_id: int
    assignment: Assignment
    task: Task
    dialect: Dialect
    message: Outgoing


@dataclass
class OpenRound:
    """A round whose tasks are decided and whose answers are to come."""

    report: RoundReport
    sent: list[Sent]
    started: float

    @property
    def outgoing(self) -> dict[int, Outgoing]:
        """Message type and content by node id."""
        return {s.node_id: s.message for s in self.sent}

    def summary(self) -> str:
        """Say in a line who trains what."""
        groups: dict[str, list[str]] = {}
        for assignment in self.report.assignments:
            groups.setdefault("+".join(assignment.modalities), []).append(assignment.client_id)
        told = "; ".join(
            f"{what}: {', '.join(who) if len(who) <= 10 else f'{len(who)} clients'}"
            for what, who in groups.items()
        )
        return f"round {self.report.round} trains {told}"


@dataclass(frozen=True)
class Patience:
    """How long a federation waits, in seconds, and what ends it early."""

    answers: float = 3600.0
    connections: float = 120.0
    stop: threading.Event = field(default_factory=threading.Event)


class FederatedRun:
    """Nodes, messages and answers of one federation.

    Parameters
    ----------
    decisions : Decisions
        The method; its state must hold the model.
    transport : Transport
    dialects : Dialects
        Kinds of clients that are served.
    app_version : str, optional
        Clients of our app that run another version are refused.
    callbacks : sequence of Callback, optional
    patience : Patience, optional
    authenticated : bool, optional
        See :class:`strategies.federation.identity.Identities`.
    """

    def __init__(
        self,
        decisions: Decisions,
        transport: Transport,
        dialects: Dialects,
        *,
        app_version: str | None = None,
        callbacks: Sequence[Callback] = (),
        patience: Patience | None = None,
        authenticated: bool | None = None,
    ) -> None:
        self.decisions, self.transport, self.dialects = decisions, transport, dialects
        self.callbacks, self.patience = callbacks, patience or Patience()
        self.registrar = Registrar(decisions, dialects, app_version, authenticated)
        self.fleet = self.registrar.fleet
        self.newcomers = Newcomers(self.registrar, transport, self.patience.connections)
        self._being_measured: list[Sent] = []
        self._warned = False

    def wait_for(self, min_clients: int) -> None:
        """Wait until enough clients have enrolled; their number must also have settled."""
        seconds = self.patience.connections
        deadline = time.monotonic() + seconds
        seen = -1
        while True:
            connected = len(list(self.transport.node_ids()))
            if connected >= max(min_clients, 1) and connected == seen:
                self.enrol(self.decisions.state.round + 1)
                if len(self.fleet.online()) >= min_clients:
                    self.check_setting()
                    return
                if self.fleet.refused:
                    reasons = "; ".join(sorted(set(self.fleet.refused.values())))
                    raise FederationError(f"nodes were refused: {reasons}")
            if self.patience.stop.is_set():
                raise Interrupted("stopped on request")
            if time.monotonic() > deadline:
                raise FederationError(
                    f"{connected} of {min_clients} clients connected within {seconds:g} s: start "
                    "more SuperNodes (in a simulation: --federation-config "
                    f"'num-supernodes={min_clients}') or wait for fewer"
                )
            seen = connected
            time.sleep(0.1)

    def check_setting(self) -> None:
        """Refuse to start with clients that the method cannot use; later ones are left out."""
        for client in self.fleet.online():
            if reason := self.decisions.unsupported(client):
                raise FederationError(reason)
        self.registrar.started = True

    def round(self, server_round: int) -> RoundReport:
        """Run one round and report it."""
        opened = self.open(server_round)
        return self.close(opened, self.exchange(server_round, "train", opened.outgoing))

    def open(self, server_round: int) -> OpenRound:
        """Enrol and measure who is new, and decide who is sent what.

        Raises
        ------
        FederationError
            If no client can be selected, or the method cannot use one that is there at the start.
        """
        started = time.monotonic()
        report = RoundReport(server_round)
        if self.registrar.started:
            self.newcomers.hear()
            self.newcomers.ask(server_round)
        else:
            self.enrol(server_round)
            self.check_setting()
        report.notes = self._notes()
        decisions, online = self.decisions, self.fleet.online()
        assignments = self.measure(server_round, online, report)
        if not assignments:
            assignments = decisions.configure_fit(server_round, online)
        if not assignments:
            raise FederationError(
                f"round {server_round}: no client to select among {len(online)} connected"
                + _listed(report.failures)
            )
        sent = self.prepare(server_round, assignments, "train")
        report.picks = [a.as_row() for a in assignments]
        report.assignments = [s.assignment for s in sent]
        return OpenRound(report, sent, started)

    def close(self, opened: OpenRound, answers: Mapping[int, Answer]) -> RoundReport:
        """Take over what clients trained, and report the round.

        Raises
        ------
        FederationError
            If no answer can be used; the method's state is then as before.
        """
        report, decisions = opened.report, self.decisions
        updates = self.judge(opened.sent, answers, report)
        if not updates:
            raise FederationError(
                f"round {report.round}: no client gave a usable answer{_listed(report.failures)}; "
                "the last complete round is kept"
            )
        self.take_measured(report)
        decisions.aggregate_fit(report.round, updates)
        self.newcomers.hear()
        report.ratios = decisions.state.global_ratios()
        report.weak = decisions.state.weak_modality()
        report.joined, report.refused = self.registrar.news()
        self.newcomers.ask(report.round)
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = time.monotonic() - opened.started
        return report

    def _notes(self) -> list[str]:
        """What is to be said of the federation, once."""
        if self._warned or not self.fleet.identities.only_claims:
            return []
        self._warned = True
        log.warning("%s", CLAIMS)
        return [CLAIMS]

    def enrol(self, server_round: int) -> None:
        """Ask nodes that are new who they are, and wait for their answers."""
        if not (new := self.newcomers.look(server_round)):
            return
        question = self.newcomers.question
        with nullcontext() if self.dialects.plain is None else quiet_about_plain_nodes():
            answers = self.exchange(server_round, "enrol", dict.fromkeys(new, question))
        for node_id, answer in answers.items():
            self.registrar.admit(node_id, answer)

    def measure(
        self, server_round: int, online: Sequence[ClientInfo], report: RoundReport
    ) -> list[Assignment]:
        """Have clients measured, beside the round's training where somebody can train meanwhile.

        Returns
        -------
        list of Assignment
            Who trains meanwhile; empty where that is yet to be decided.
        """
        decisions, busy = self.decisions, self.newcomers.being_measured()
        idle = [c for c in online if self.fleet.nodes[c.client_id] not in busy]
        if not (probes := decisions.configure_probe(server_round, idle)):
            return []
        sent = self.prepare(server_round, probes, decisions.probes)
        outgoing = {s.node_id: s.message for s in sent}
        meanwhile = decisions.configure_fit(server_round, online) if decisions.measures_once else []
        if meanwhile:
            self._being_measured += sent
            self.newcomers.measure(outgoing, server_round)
            return meanwhile
        answers = self.exchange(server_round, "probe", outgoing)
        decisions.aggregate_probe(server_round, self.judge(sent, answers, report))
        return []

    def take_measured(self, report: RoundReport) -> None:
        """Take over what clients have measured beside the round by now."""
        answers = self.newcomers.measured()
        heard = [s for s in self._being_measured if s.node_id in answers]
        pending = self.newcomers.being_measured()
        self._being_measured = [s for s in self._being_measured if s.node_id in pending]
        if heard:
            self.decisions.aggregate_probe(report.round, self.judge(heard, answers, report))

    def prepare(
        self, server_round: int, assignments: Iterable[Assignment], kind: Kind
    ) -> list[Sent]:
        """Make the messages of a phase."""
        sent, encode = [], Encoder()
        for decided in assignments:
            client = self.fleet.clients[decided.client_id]
            node_id = self.fleet.nodes[decided.client_id]
            dialect = self.fleet.dialects[node_id]
            assignment = dialect.assign(decided, client)
            task = self.decisions.task(server_round, assignment, kind)
            message = dialect.pack(task, client, encode)
            sent.append(Sent(node_id, assignment, task, dialect, message))
        return sent

    # --- which answers count ---------------------------------------------------------------------

    def judge(
        self, sent: Sequence[Sent], answers: Mapping[int, Answer], report: RoundReport
    ) -> list[Update]:
        """Collect the valid updates, and note every client in the report."""
        shapes = self._known_shapes()
        updates = []
        for message in sorted(sent, key=lambda s: s.assignment.client_id):
            answer = answers.get(message.node_id) or Answer(None, "no answer")
            phase = "train" if message.task.orders.kind == "train" else "probe"
            assignment = message.assignment
            entry = ClientReport(assignment.client_id, phase, assignment.modalities)
            entry.bytes_down, entry.bytes_up = answer.bytes_down, answer.bytes_up
            entry.seconds = answer.seconds
            report.clients.append(entry)
            read = self._read(message, answer, shapes)
            if isinstance(read, str):
                entry.status = read
                self.fleet.doubt(message.node_id)
                if self.dialects.plain is not None:  # our own app has callbacks for it
                    log.warning("client '%s' is left out: %s", entry.client_id, read)
                continue
            entry.num_samples, entry.metrics = read.num_samples, read.metrics
            entry.ratios = read.ratios
            shapes |= shapes_of(read.prototypes, read.signatures)
            updates.append(read)
        return updates

    def _known_shapes(self) -> dict[str, tuple[int, ...]]:
        state, shapes = self.decisions.state, dict[str, tuple[int, ...]]()
        for client_id in state.clients:
            shapes |= shapes_of(
                state.prototypes.get(client_id, {}), state.signatures.get(client_id, {})
            )
        return shapes

    def _read(self, sent: Sent, answer: Answer, shapes: dict[str, tuple[int, ...]]) -> Update | str:
        """Read and check one answer; of a bad one, return the reason."""
        task, dialect = sent.task, sent.dialect
        if answer.content is None:
            return answer.error
        try:
            update = dialect.read(task, answer.content)
        except Exception as error:  # whatever a foreign node sends must not end the run
            return dialect.in_words(error)
        if fault := self.fleet.contradiction(sent.node_id, sent.assignment.client_id, update):
            return fault
        kind = task.orders.kind
        expected = self.decisions.expected_arrays(task.orders.modalities) if kind == "train" else {}
        if fault := find_fault(update, dialect.owed(task, expected), shapes=shapes):
            return dialect.in_words(fault)
        dialect.complete(update, task, expected, self.decisions)
        if fault := self.decisions.check_update(update, kind):
            return fault
        return update

    def exchange(
        self, server_round: int, phase: str, outgoing: Mapping[int, Outgoing]
    ) -> dict[int, Answer]:
        """Send and wait, telling the callbacks and counting bytes."""
        total, patience = len(outgoing), self.patience
        for callback in self.callbacks:
            callback.on_dispatch(server_round, phase, total)

        def on_reply(done: int) -> None:
            for callback in self.callbacks:
                callback.on_reply(server_round, phase, done, total)

        return self.transport.exchange(
            outgoing,
            group=str(server_round),
            timeout=patience.connections if phase == "enrol" else patience.answers,
            on_reply=on_reply,
            should_stop=patience.stop.is_set,
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "".join(f"\n  {client}: {reason}" for client, reason in sorted(failures.items()))
