"""One federated run: who is there, what is sent, which answers count; over any transport."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ConfigRecord, RecordDict

from .callbacks import Callback, ClientReport, RoundReport
from .foreign import Keys, Request, pack_request, read_answer
from .parts import Parts
from .protocol import (
    ENROL,
    PROBE,
    TRAIN,
    Arrays,
    Assignment,
    Update,
    pack_task,
    unpack_update,
)
from .registrar import Registrar
from .transport import Answer, Interrupted, Outgoing, Transport, quiet_about_plain_nodes
from .validation import find_fault, shapes_of

if TYPE_CHECKING:
    from .base import ModalityStrategy

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


class FederationError(RuntimeError):
    """The federation cannot go on; the message says why and what to do."""


@dataclass
class Sent:
    """One phase's messages: to whom what was sent."""

    phase: str  # "probe" or "train"
    outgoing: dict[int, Outgoing] = field(default_factory=dict)
    assignments: dict[int, Assignment] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)  # of foreign clients


@dataclass
class OpenRound:
    """A round whose tasks are decided and whose answers are to come."""

    report: RoundReport
    sent: Sent
    started: float

    def summary(self) -> str:
        """Say in a line who trains what."""
        groups: dict[str, list[str]] = {}
        for assignment in self.sent.assignments.values():
            groups.setdefault("+".join(assignment.modalities), []).append(assignment.client_id)
        told = "; ".join(
            f"{what}: {', '.join(who) if len(who) <= 10 else f'{len(who)} clients'}"
            for what, who in groups.items()
        )
        return f"round {self.report.round} trains {told}"


class FederatedRun:
    """The transport half of a federation: nodes, messages, answers.

    Attributes
    ----------
    settings : dict
        JSON values sent to clients of our app with every message.
    parts : Parts, optional
        The model's names, where its clients use others than the strategies.
    config : dict
        Entries of the config that foreign clients receive, by the user's own keys.
    """

    def __init__(
        self,
        strategy: ModalityStrategy,
        transport: Transport,
        settings: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        timeout: float = 3600.0,
        connect_timeout: float = 120.0,
        stop: threading.Event | None = None,
    ) -> None:
        self.strategy, self.transport, self.settings = strategy, transport, settings or {}
        self.callbacks, self.stop = callbacks, stop or threading.Event()
        self.timeout, self.connect_timeout = timeout, connect_timeout
        self.parts: Parts | None = None
        self.keys = Keys()
        self.config: dict[str, Any] = {}
        self.registrar = Registrar(strategy)
        self.fleet = self.registrar.fleet

    def wait_for(self, min_clients: int) -> None:
        """Wait until enough clients have enrolled; their number must also have settled."""
        seconds = self.connect_timeout
        deadline = time.monotonic() + seconds
        seen = -1
        while True:
            connected = len(list(self.transport.node_ids()))
            if connected >= max(min_clients, 1) and connected == seen:
                self.enrol(self.strategy.state.round + 1)
                if len(self.fleet.online()) >= min_clients:
                    self.check_setting()
                    return
                if self.fleet.refused:
                    reasons = "; ".join(sorted(set(self.fleet.refused.values())))
                    raise FederationError(f"nodes were refused: {reasons}")
            if self.stop.is_set():
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
            if reason := self.strategy.unsupported(client):
                raise FederationError(reason)
        self.registrar.started = True

    def round(self, server_round: int, round_settings: dict[str, Any]) -> RoundReport:
        """Run one round and report it."""
        opened = self.open(server_round, round_settings)
        return self.close(opened, self.exchange(server_round, "train", opened.sent.outgoing))

    def open(self, server_round: int, round_settings: dict[str, Any]) -> OpenRound:
        """Enrol and measure who is new, and decide who is sent what."""
        started = time.monotonic()
        report = RoundReport(server_round)
        self.enrol(server_round)
        online = self.fleet.online()
        probes = self.strategy.configure_probe(server_round, online)
        if probes:
            sent = self.tasks("probe", server_round, probes, round_settings)
            answers = self.exchange(server_round, "probe", sent.outgoing)
            self.strategy.aggregate_probe(server_round, self.judge(sent, answers, report))
        assignments = self.strategy.configure_fit(server_round, online)
        if not assignments:
            raise FederationError(
                f"round {server_round}: no client to select among {len(online)} connected"
                + _listed(report.failures)
            )
        sent = self.tasks("train", server_round, assignments, round_settings)
        report.assignments, report.picks = list(sent.assignments.values()), self.strategy.picks
        return OpenRound(report, sent, started)

    def close(self, opened: OpenRound, answers: Mapping[int, Answer]) -> RoundReport:
        """Take over what clients trained, and report the round.

        Raises
        ------
        FederationError
            If no answer can be used; the strategy's state is then as before.
        """
        report = opened.report
        updates = self.judge(opened.sent, answers, report)
        if not updates:
            raise FederationError(
                f"round {report.round}: no client gave a usable answer{_listed(report.failures)}; "
                "the last complete round is kept"
            )
        self.strategy.aggregate_fit(report.round, updates)
        report.ratios = self.strategy.state.global_ratios()
        report.weak = self.strategy.state.weak_modality()
        report.joined, report.refused = self.registrar.news()
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = time.monotonic() - opened.started
        return report

    def enrol(self, server_round: int) -> None:
        """Ask nodes that are new who they are."""
        new = self.fleet.connect(self.transport.node_ids())
        if not new:
            return
        request = RecordDict({"config": ConfigRecord({"settings": json.dumps(self.settings)})})
        outgoing = dict.fromkeys(new, (ENROL, request))
        with quiet_about_plain_nodes() if self.parts is not None else nullcontext():
            answers = self.exchange(server_round, "enrol", outgoing)
        self.registrar.foreigners = self.parts is not None
        for node_id, answer in answers.items():
            self.registrar.admit(node_id, answer)

    # --- what is sent ----------------------------------------------------------------------------

    def tasks(
        self,
        phase: str,
        server_round: int,
        assignments: Iterable[Assignment],
        round_settings: dict[str, Any],
    ) -> Sent:
        """Prepare a phase's messages."""
        sent = Sent(phase)
        made: dict[int, Array] = {}
        keep: list[Arrays] = []  # so that no id in `made` is given away
        for assignment in assignments:
            client_id = assignment.client_id
            node_id = self.fleet.nodes[client_id]
            if node_id in self.fleet.plain:  # it will train everything whatever it is told
                held = self.strategy.state.clients[client_id].modalities
                assignment = Assignment(client_id, held)
            sent.assignments[node_id] = assignment
            task = self.strategy.task(server_round, assignment, probe=phase == "probe")
            task.settings = {
                **self.settings,
                **round_settings,
                **task.settings,
                "round": server_round,
                "client_id": client_id,
            }
            keep.append(task.arrays)
            if node_id not in self.fleet.foreign:
                kind = PROBE if phase == "probe" else TRAIN
                sent.outgoing[node_id] = kind, pack_task(task, made)
                continue
            assert self.parts is not None  # only with parts is a node ever foreign
            model = self.strategy.state.arrays
            if self.strategy.send_whole_model:
                task.arrays = {**model, **task.arrays}
                keep.append(task.arrays)
            task.settings["held"] = len(self.strategy.state.clients[client_id].modalities)
            request = Request(task, phase == "probe", node_id in self.fleet.plain)
            sent.requests[node_id] = request
            sent.outgoing[node_id] = pack_request(
                request, model, self.parts, self.keys, self.config, server_round, made
            )
        return sent

    # --- which answers count ---------------------------------------------------------------------

    def judge(self, sent: Sent, answers: Mapping[int, Answer], report: RoundReport) -> list[Update]:
        """Collect the valid updates, and note every client in the report."""
        shapes = self._known_shapes()
        updates = []
        for node_id, assignment in sorted(
            sent.assignments.items(), key=lambda item: item[1].client_id
        ):
            answer = answers.get(node_id) or Answer(None, "no answer")
            entry = ClientReport(assignment.client_id, sent.phase, assignment.modalities)
            entry.bytes_down, entry.bytes_up = answer.bytes_down, answer.bytes_up
            entry.seconds = answer.seconds
            report.clients.append(entry)
            update = self._read(sent, node_id, answer, shapes, entry)
            if update is None:
                self._warn(f"client '{entry.client_id}' is left out: {entry.status}")
                continue
            entry.num_samples, entry.metrics = update.num_samples, update.metrics
            entry.ratios = update.ratios
            shapes |= shapes_of(update.prototypes, update.signatures)
            updates.append(update)
        return updates

    def _known_shapes(self) -> dict[str, tuple[int, ...]]:
        state, shapes = self.strategy.state, dict[str, tuple[int, ...]]()
        for client_id in state.clients:
            shapes |= shapes_of(
                state.prototypes.get(client_id, {}), state.signatures.get(client_id, {})
            )
        return shapes

    def _read(
        self,
        sent: Sent,
        node_id: int,
        answer: Answer,
        shapes: dict[str, tuple[int, ...]],
        entry: ClientReport,
    ) -> Update | None:
        """Read and check one answer; a bad one is None, with the reason in the report's entry."""
        assignment, probe = sent.assignments[node_id], sent.phase == "probe"
        request = sent.requests.get(node_id)
        if answer.content is None:
            entry.status = answer.error
            return None
        try:
            if request is None:
                update = unpack_update(assignment.client_id, answer.content)
            else:
                assert self.parts is not None
                update = read_answer(
                    assignment.client_id, request, answer.content, self.parts, self.keys
                )
        except Exception as error:  # whatever a foreign node sends must not end the run
            plainly = request is not None and isinstance(error, ValueError)
            entry.status = str(error) if plainly else f"unreadable answer: {error!r}"
            return None
        expected = {} if probe else self.strategy.expected_arrays(assignment.modalities)
        if request is None or request.asks_loss:
            fault = find_fault(update, expected, shapes=shapes)
        elif fault := find_fault(update, request.task.arrays, shapes=shapes):
            assert self.parts is not None
            remedy = "; answer with all the arrays that were sent"
            fault = self.parts.in_words(fault) + (remedy if fault.startswith("missing") else "")
        else:  # it trained what it was sent; what is taken over may be less
            self.strategy.complete(update, request.task.arrays)
            update.arrays = {n: v for n, v in update.arrays.items() if n in expected}
            self._learn_samples(update)
        fault = fault or self.strategy.check_update(update, probe=probe)
        if fault is not None:
            entry.status = fault
            return None
        return update

    def _learn_samples(self, update: Update) -> None:
        """Remember how many samples a client has that did not say so when it enrolled."""
        known = self.strategy.state.clients
        info = known.get(update.client_id)
        if info is not None and update.num_samples > 0:
            known[update.client_id] = dataclasses.replace(info, num_samples=update.num_samples)

    def _warn(self, text: str) -> None:
        """Tell users of Flower's interfaces; our own app has callbacks for it."""
        if self.parts is not None:
            log.warning(text)

    def exchange(
        self, server_round: int, phase: str, outgoing: Mapping[int, Outgoing]
    ) -> dict[int, Answer]:
        """Send and wait, telling the callbacks and counting bytes."""
        total = len(outgoing)
        for callback in self.callbacks:
            callback.on_dispatch(server_round, phase, total)

        def on_reply(done: int) -> None:
            for callback in self.callbacks:
                callback.on_reply(server_round, phase, done, total)

        return self.transport.exchange(
            outgoing,
            group=str(server_round),
            timeout=self.connect_timeout if phase == "enrol" else self.timeout,
            on_reply=on_reply,
            should_stop=self.stop.is_set,
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "".join(f"\n  {client}: {reason}" for client, reason in sorted(failures.items()))
