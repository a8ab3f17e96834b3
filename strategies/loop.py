"""One federated run over Flower's grid: who is there, what is sent, which answers count."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from .callbacks import Callback, ClientReport, RoundReport
from .fleet import Fleet
from .protocol import (
    ENROL,
    PROBE,
    PROTOCOL_VERSION,
    TRAIN,
    Assignment,
    ClientInfo,
    Update,
    pack_task,
    unpack_enrolment,
    unpack_update,
)
from .transport import Answer, Interrupted, exchange
from .validation import find_fault, shapes_of

if TYPE_CHECKING:
    from .base import ModalityStrategy


class FederationError(RuntimeError):
    """The federation cannot go on; the message says why and what to do."""


class FederatedRun:
    """The transport half of a federation: nodes, messages, answers."""

    def __init__(
        self,
        strategy: ModalityStrategy,
        grid: Grid,
        settings: dict[str, Any],
        callbacks: Sequence[Callback],
        timeout: float,
        connect_timeout: float,
        stop: threading.Event,
    ) -> None:
        self.strategy, self.grid, self.settings = strategy, grid, settings
        self.callbacks, self.stop = callbacks, stop
        self.timeout, self.connect_timeout = timeout, connect_timeout
        self.fleet = Fleet()
        # Since the last round's report:
        self.joined: list[ClientInfo] = []
        self.refused: dict[str, str] = {}
        self.started = False

    def wait_for(self, min_clients: int) -> None:
        """Wait until enough clients have enrolled; their number must also have settled."""
        seconds = self.connect_timeout
        deadline = time.monotonic() + seconds
        seen = -1
        while True:
            connected = len(list(self.grid.get_node_ids()))
            if connected >= max(min_clients, 1) and connected == seen:
                self.enrol(self.strategy.state.round + 1)
                if len(self.fleet.online()) >= min_clients:
                    self._check_setting()
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

    def _check_setting(self) -> None:
        """Refuse to start with clients that the method cannot use; later ones are left out."""
        for client in self.fleet.online():
            if reason := self.strategy.unsupported(client):
                raise FederationError(reason)
        self.started = True

    def round(self, server_round: int, round_settings: dict[str, Any]) -> RoundReport:
        """Run one round and report it."""
        started = time.monotonic()
        report = RoundReport(server_round)
        self.enrol(server_round)
        online = self.fleet.online()
        probes = self.strategy.configure_probe(server_round, online)
        if probes:
            measured = self.send(PROBE, server_round, probes, round_settings, report)
            self.strategy.aggregate_probe(server_round, measured)
        assignments = self.strategy.configure_fit(server_round, online)
        if not assignments:
            raise FederationError(
                f"round {server_round}: no client to select among {len(online)} connected"
                + _listed(report.failures)
            )
        report.assignments, report.picks = assignments, self.strategy.picks
        updates = self.send(TRAIN, server_round, assignments, round_settings, report)
        if not updates:
            raise FederationError(
                f"round {server_round}: no client gave a usable answer{_listed(report.failures)}; "
                "the last complete round is kept"
            )
        self.strategy.aggregate_fit(server_round, updates)
        report.ratios = self.strategy.state.global_ratios()
        report.weak = self.strategy.state.weak_modality()
        report.refused, self.refused = self.refused, {}
        report.joined, self.joined = sorted(self.joined, key=lambda c: c.client_id), []
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = time.monotonic() - started
        return report

    def enrol(self, server_round: int) -> None:
        """Ask nodes that are new who they are."""
        new = self.fleet.connect(self.grid.get_node_ids())
        if not new:
            return
        request = RecordDict({"config": ConfigRecord({"settings": json.dumps(self.settings)})})
        for node_id, answer in self.exchange(
            "enrol", ENROL, server_round, dict.fromkeys(new, request)
        ).items():
            try:
                info = self._read_enrolment(node_id, answer)
                self.fleet.enrol(node_id, info)
                known = self.strategy.state.clients
                if info.client_id not in known:  # one that came back is known already
                    self.joined.append(info)
                known[info.client_id] = info
            except (ValueError, TypeError) as error:
                self.refused[f"node {node_id}"] = str(error)

    def _read_enrolment(self, node_id: int, answer: Answer) -> ClientInfo:
        try:
            if answer.content is None:
                raise ValueError(answer.error)
            info, protocol, version = unpack_enrolment(answer.content)
            self._check_enrolment(info, protocol, version)
        except KeyError as error:
            reason = f"its answer lacks {error}: does it run this app?"
            self.fleet.refuse(node_id, reason)
            raise ValueError(reason) from None
        except (ValueError, TypeError) as error:
            self.fleet.refuse(node_id, str(error))
            raise
        return info

    def _check_enrolment(self, info: ClientInfo, protocol: int, version: str) -> None:
        ours = (PROTOCOL_VERSION, self.strategy.app_version or version)
        if (protocol, version) != ours:
            raise ValueError(
                f"client '{info.client_id}' runs version {version} (protocol {protocol}), the "
                f"server {ours[1]} (protocol {ours[0]}): install the same version on both"
            )
        model = self.strategy.state.modalities
        if not info.modalities or (model and set(info.modalities) - set(model)):
            raise ValueError(
                f"client '{info.client_id}' holds {list(info.modalities)}, the model has "
                f"{list(model)}: give it data of this experiment's data set"
            )
        if self.started and (reason := self.strategy.unsupported(info)):
            raise ValueError(reason)

    def send(
        self,
        message_type: str,
        server_round: int,
        assignments: Sequence[Assignment],
        round_settings: dict[str, Any],
        report: RoundReport,
    ) -> list[Update]:
        """Send tasks, collect valid updates, and note every client in the report."""
        probe = message_type == PROBE
        contents: dict[int, RecordDict] = {}
        by_node: dict[int, Assignment] = {}
        for assignment in assignments:
            task = self.strategy.task(server_round, assignment, probe=probe)
            task.settings = {
                **self.settings,
                **round_settings,
                **task.settings,
                "round": server_round,
                "client_id": assignment.client_id,
            }
            node_id = self.fleet.nodes[assignment.client_id]
            contents[node_id], by_node[node_id] = pack_task(task), assignment
        phase = "probe" if probe else "train"
        answers = self.exchange(phase, message_type, server_round, contents)
        shapes = self._known_shapes()
        updates = []
        for node_id, assignment in sorted(by_node.items(), key=lambda item: item[1].client_id):
            entry, update = self._judge(phase, assignment, answers[node_id], shapes)
            report.clients.append(entry)
            if update is not None:
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

    def _judge(
        self,
        phase: str,
        assignment: Assignment,
        answer: Answer,
        shapes: dict[str, tuple[int, ...]],
    ) -> tuple[ClientReport, Update | None]:
        """Read one answer; a bad one is left out, with the reason in its report."""
        client_id, modalities = assignment.client_id, assignment.modalities
        entry = ClientReport(client_id, phase, modalities)
        entry.bytes_down, entry.bytes_up = answer.bytes_down, answer.bytes_up
        entry.seconds, entry.status = answer.seconds, answer.error or "ok"
        if answer.content is None:
            return entry, None
        try:
            update = unpack_update(client_id, answer.content)
        except Exception as error:  # whatever a foreign node sends must not end the run
            entry.status = f"unreadable answer: {error!r}"
            return entry, None
        probe = phase == "probe"
        expected = {} if probe else self.strategy.expected_arrays(modalities)
        fault = find_fault(update, expected, shapes=shapes)
        fault = fault or self.strategy.check_update(update, probe=probe)
        if fault is not None:
            entry.status = fault
            return entry, None
        entry.num_samples, entry.metrics = update.num_samples, update.metrics
        entry.ratios = update.ratios
        return entry, update

    def exchange(
        self, phase: str, message_type: str, server_round: int, contents: dict[int, RecordDict]
    ) -> dict[int, Answer]:
        """Send and wait, telling the callbacks and counting bytes."""
        total = len(contents)
        for callback in self.callbacks:
            callback.on_dispatch(server_round, phase, total)

        def on_reply(done: int) -> None:
            for callback in self.callbacks:
                callback.on_reply(server_round, phase, done, total)

        return exchange(
            self.grid,
            contents,
            message_type,
            group=str(server_round),
            timeout=self.connect_timeout if phase == "enrol" else self.timeout,
            on_reply=on_reply,
            should_stop=self.stop.is_set,
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "".join(f"\n  {client}: {reason}" for client, reason in sorted(failures.items()))
