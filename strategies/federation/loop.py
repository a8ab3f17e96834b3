"""One federated run: who is there, what is sent, which answers count.

It knows neither how messages travel (a :class:`~strategies.federation.transport.Transport` does)
nor what kinds of clients there are (a :class:`~strategies.federation.dialects.Dialect` does), nor
what the method decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from ..callbacks import Callback, RoundReport
from ..decisions import Decisions
from ..messages import Assignment, ClientInfo, Kind
from ..ratios import weakest
from .errors import FederationError, RoundFailed
from .gathering import Gathering
from .judging import Judge, Sent, warn_of_large
from .merging import merge
from .outliers import Inspection
from .registrar import Dialects, Registrar
from .transport import Answer, Outgoing, Transport, quiet_about_plain_nodes
from .validation import model_fault
from .waiting import Patience
from .wire import ENROL, Encoder, ask_enrolment


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
    ) -> None:
        self.decisions, self.transport, self.dialects = decisions, transport, dialects
        self.callbacks, self.patience = callbacks, patience or Patience()
        self.clock = self.patience.waiting.clock
        self.registrar = Registrar(decisions, dialects, app_version)
        self.fleet = self.registrar.fleet
        self.gathering = Gathering(
            self.fleet,
            transport,
            self.patience,
            lambda: self.enrol(self.decisions.state.round + 1),
        )
        self.judge = Judge(decisions, warns=dialects.plain is not None)

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
        self.enrol(server_round)
        if not self.registrar.started:
            self.check_setting()
        decisions, online = self.decisions, self.available(without)
        lost: set[str] = set()
        if online and (probes := decisions.configure_probe(server_round, online)):
            sent = self.prepare(server_round, probes, decisions.probes)
            answers = self.exchange(server_round, "probe", {s.node_id: s.message for s in sent})
            measured = self.judge(sent, answers, report)
            merge(decisions, lambda u: decisions.aggregate_probe(server_round, u), measured, report)
            lost = _lost(sent, answers)
        assignments = decisions.configure_fit(server_round, online) if online else []
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
        if not merge(
            decisions, lambda u: decisions.aggregate_fit(report.round, u), updates, report
        ):
            raise RoundFailed("the method can use no answer", report)
        if decisions.privacy is None:
            inspection.complete(report)
        report.ratios = decisions.global_ratios()
        report.weak = weakest(report.ratios)
        report.joined, report.refused = self.registrar.news()
        report.seconds = self.clock.monotonic() - opened.started
        return report

    def enrol(self, server_round: int) -> None:
        """Ask nodes that are new who they are, and tell the callbacks who is there."""
        if new := self.fleet.connect(self.transport.node_ids()):
            self._ask(server_round, new)
        for callback in self.callbacks:
            callback.on_connections(self.fleet.connections())

    def _ask(self, server_round: int, new: Iterable[int]) -> None:
        question = ENROL, ask_enrolment(self.dialects.native.settings)
        with nullcontext() if self.dialects.plain is None else quiet_about_plain_nodes():
            answers = self.exchange(server_round, "enrol", dict.fromkeys(new, question))
        for node_id, answer in answers.items():
            self.registrar.admit(node_id, answer)
        warn_of_large(self.fleet.clients)

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
