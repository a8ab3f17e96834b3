"""One federated run: who is there, what is sent, which answers count.

It knows neither how messages travel (a :class:`~strategies.federation.transport.Transport` does)
nor what kinds of clients there are (a :class:`~strategies.federation.dialects.Dialect` does), nor
what the method decides.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from ..callbacks import Callback, RoundReport
from ..decisions import Decisions
from ..messages import Assignment, ClientInfo, Kind, Task, Update
from .errors import FederationError, RoundFailed
from .gathering import Gathering
from .identity import CLAIMS
from .judging import Judge, Sent, warn_of_large
from .merging import merge
from .newcomers import Newcomers
from .outliers import Inspection
from .registrar import Dialects, Registrar
from .transport import Answer, Outgoing, Transport, quiet_about_plain_nodes
from .validation import model_fault
from .waiting import Patience
from .wire import Encoder

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


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
        self.clock = self.patience.waiting.clock
        self.registrar = Registrar(decisions, dialects, app_version, authenticated)
        self.fleet = self.registrar.fleet
        self.newcomers = Newcomers(self.registrar, transport, self.patience)
        self._being_measured: list[Sent] = []
        self._warned = False
        self.gathering = Gathering(
            self.fleet,
            transport,
            self.patience,
            lambda: self.enrol(self.decisions.state.round + 1),
        )
        self.judge = Judge(decisions, self.fleet, warns=dialects.plain is not None)

    def wait_for(self, min_clients: int) -> None:
        """Wait until enough clients have enrolled; see :class:`Gathering`."""
        self.registrar.started = True  # a client that cannot take part is refused: others may come
        self.gathering.wait_for(min_clients)

    def check_setting(self) -> None:
        """Refuse to start with clients that the method cannot use; later ones are left out."""
        for client in self.fleet.online():
            if reason := self.decisions.unsupported(client):
                raise FederationError(reason)
        self.registrar.started = True

    def round(self, server_round: int, without: Container[str] = ()) -> RoundReport:
        """Try one round, and report it; see :func:`strategies.federation.attempts.complete`.

        Raises
        ------
        RoundFailed
            If no client can be selected, or no answer can be used.
        """
        opened = self.open(server_round, without)
        return self.close(opened, self.exchange(server_round, "train", opened.outgoing))

    def available(self, without: Container[str] = ()) -> list[ClientInfo]:
        """Return the clients that can be asked now: connected, and not at work on an old task."""
        busy = self.transport.busy()
        return [
            c
            for c in self.fleet.online()
            if c.client_id not in without and self.fleet.nodes[c.client_id] not in busy
        ]

    def open(self, server_round: int, without: Container[str] = ()) -> OpenRound:
        """Enrol and measure who is new, and decide who is sent what.

        Parameters
        ----------
        server_round : int
        without : container of str
            Clients that are not asked.

        Raises
        ------
        FederationError
            If no client can be selected, or the method cannot use one that is there at the start.
        """
        started = self.clock.monotonic()
        report = RoundReport(server_round, attempt=self.decisions.attempt)
        if fault := model_fault(self.decisions.state.arrays):
            raise FederationError(f"round {server_round}: {fault}")
        if self.registrar.started:
            self.newcomers.hear()
            self.newcomers.ask(server_round)
            self._tell_connections()
        else:
            self.enrol(server_round)
            self.check_setting()
        report.notes = self._notes()
        decisions, online = self.decisions, self.available(without)
        assignments, lost = self.measure(server_round, online, report)
        if not assignments and online:
            assignments = decisions.configure_fit(server_round, online)
        if not assignments:
            connected = len(self.fleet.online())
            report.seconds = self.clock.monotonic() - started
            raise RoundFailed(f"no client to select among {connected} connected", report, lost)
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
        received = {s.assignment.client_id: s.task.arrays for s in opened.sent}
        inspection = Inspection(decisions, received, updates)
        if decisions.privacy is None:  # which clips by itself, and accounts for all that is kept
            updates = inspection.guarded(report, warn=self.dialects.plain is not None)
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = self.clock.monotonic() - opened.started
        if not updates:
            reason = f"no client gave a usable answer{self.judge.blame(report)}"
            raise RoundFailed(reason, report, _lost(opened.sent, answers))
        self.take_measured(report)
        if not merge(
            decisions, lambda u: decisions.aggregate_fit(report.round, u), updates, report
        ):
            raise RoundFailed("the method can use no answer", report)
        if decisions.privacy is None:
            inspection.complete(report)
        self.newcomers.hear()
        report.ratios = decisions.global_ratios()
        report.weak = decisions.weak_modality()
        report.joined, report.refused = self.registrar.news()
        self.newcomers.ask(report.round)
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = self.clock.monotonic() - opened.started
        return report

    def _notes(self) -> list[str]:
        """What is to be said of the federation, once."""
        if self._warned or not self.fleet.identities.only_claims:
            return []
        self._warned = True
        log.warning("%s", CLAIMS)
        return [CLAIMS]

    def meet(self, server_round: int) -> None:
        """Ask nodes that are new who they are, and admit those that have answered by now."""
        self.newcomers.hear()
        self.newcomers.ask(server_round)
        self.newcomers.hear()
        self._tell_connections()

    def enrol(self, server_round: int) -> None:
        """Ask nodes that are new who they are, and wait for their answers."""
        if new := self.newcomers.look(server_round):
            self._ask(server_round, new)
        self._tell_connections()

    def _tell_connections(self) -> None:
        for callback in self.callbacks:
            callback.on_connections(self.fleet.connections())

    def _ask(self, server_round: int, new: Iterable[int]) -> None:
        question = self.newcomers.question
        with nullcontext() if self.dialects.plain is None else quiet_about_plain_nodes():
            answers = self.exchange(server_round, "enrol", dict.fromkeys(new, question))
        for node_id, answer in answers.items():
            self.registrar.admit(node_id, answer)
        warn_of_large(self.fleet.clients)

    def measure(
        self, server_round: int, online: Sequence[ClientInfo], report: RoundReport
    ) -> tuple[list[Assignment], set[str]]:
        """Have clients measured, beside the round's training where somebody can train meanwhile.

        Returns
        -------
        assignments : list of Assignment
            Who trains meanwhile; empty where that is yet to be decided.
        lost : set of str
            Clients that were waited for and said nothing.
        """
        decisions, asked = self.decisions, self.newcomers.being_measured()
        idle = [c for c in online if self.fleet.nodes[c.client_id] not in asked]
        if not idle or not (probes := decisions.configure_probe(server_round, idle)):
            return [], set()
        sent = self.prepare(server_round, probes, decisions.probes)
        outgoing = {s.node_id: s.message for s in sent}
        meanwhile = decisions.configure_fit(server_round, online) if decisions.measures_once else []
        if meanwhile:
            self._being_measured += sent
            self.newcomers.measure(outgoing, server_round)
            return meanwhile, set()
        answers = self.exchange(server_round, "probe", outgoing)
        self._take_probes(server_round, self.judge(sent, answers, report), report)
        return [], _lost(sent, answers)

    def take_measured(self, report: RoundReport) -> None:
        """Take over what clients have measured beside the round by now."""
        answers = self.newcomers.measured()
        heard = [s for s in self._being_measured if s.node_id in answers]
        pending = self.newcomers.being_measured()
        self._being_measured = [s for s in self._being_measured if s.node_id in pending]
        if heard:
            self._take_probes(report.round, self.judge(heard, answers, report), report)

    def _take_probes(
        self, server_round: int, updates: Sequence[Update], report: RoundReport
    ) -> None:
        decisions = self.decisions
        merge(decisions, lambda u: decisions.aggregate_probe(server_round, u), updates, report)

    def prepare(
        self, server_round: int, assignments: Iterable[Assignment], kind: Kind
    ) -> list[Sent]:
        """Make the messages of a phase."""
        sent, encode = [], Encoder()
        for decided in assignments:
            dialect = self.fleet.dialects[self.fleet.nodes[decided.client_id]]
            assignment = dialect.assign(decided, self.fleet.clients[decided.client_id])
            task = self.decisions.task(server_round, assignment, kind)
            sent.append(self.packed(assignment, task, encode))
        return sent

    def packed(self, assignment: Assignment, task: Task, encode: Encoder) -> Sent:
        """Make the message that puts a task to a client."""
        client = self.fleet.clients[assignment.client_id]
        node_id = self.fleet.nodes[assignment.client_id]
        dialect = self.fleet.dialects[node_id]
        return Sent(node_id, assignment, task, dialect, dialect.pack(task, client, encode))

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
            closing=patience.closing(phase, total),
        )


def _lost(sent: Iterable[Sent], answers: Mapping[int, Answer]) -> set[str]:
    """Clients that said nothing: gone, slow or never reached, but not wrong."""
    silent = Answer(None, lost=True)
    return {s.assignment.client_id for s in sent if answers.get(s.node_id, silent).lost}
