"""``ModalityStrategy``: one federated round, whatever the method decides.

A method overrides :meth:`ModalityStrategy.configure_fit` (who trains what) and, where it must,
:meth:`ModalityStrategy.aggregate_fit`. Both are free of transport: they take and return plain
dataclasses of numpy arrays. The rest of the class is the loop that carries them over Flower.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from .aggregation import aggregate_parts
from .callbacks import Callback, ClientReport, RoundReport
from .fleet import Fleet
from .protocol import (
    ENROL,
    PROBE,
    PROTOCOL_VERSION,
    TRAIN,
    Arrays,
    Assignment,
    ClientInfo,
    Task,
    Update,
    pack_task,
    select_parts,
    unpack_enrolment,
    unpack_update,
)
from .state import ServerState
from .transport import Answer, Interrupted, exchange
from .validation import find_fault


class FederationError(RuntimeError):
    """The federation cannot go on; the message says why and what to do."""


class ModalityStrategy:
    """Base of all strategies: the round, with decisions left to the method.

    Parameters
    ----------
    clients_per_round : int or float, default 0.5
        Clients that train each round: a number >= 1, or a share in (0, 1) of those connected
        (rounded up, at least 2 where there are 2).
    seed : int, default 0
        Every draw of the strategy comes from (seed, round, purpose).
    head_columns : {"own", "all"}, default "own"
        See :func:`strategies.aggregation.aggregate_parts`.
    app_version : str, optional
        If given, nodes that run another version are refused with a message that says so.

    Attributes
    ----------
    state : ServerState
        Everything the strategy remembers. ``state.arrays`` is the global model: set it before
        the first round, or pass it to :meth:`start`.
    picks : list of dict
        What was behind each pick of the last :meth:`configure_fit`.

    Raises
    ------
    ValueError
        If ``clients_per_round`` is not positive.
    """

    #: True where clients are measured once (signatures, prototypes) before they can be selected.
    needs_probe: ClassVar[bool] = False

    def __init__(
        self,
        clients_per_round: int | float = 0.5,
        *,
        seed: int = 0,
        head_columns: Literal["own", "all"] = "own",
        app_version: str | None = None,
    ) -> None:
        if not clients_per_round > 0:
            raise ValueError(f"clients_per_round is {clients_per_round}, it must be above 0")
        self.clients_per_round = clients_per_round
        self.seed = seed
        self.head_columns: Literal["own", "all"] = head_columns
        self.app_version = app_version
        self.state = ServerState()
        self.picks: list[dict[str, Any]] = []

    # --- decisions: what a method overrides ----------------------------------------------------

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Decide which clients train which of their modalities this round."""
        raise NotImplementedError

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Merge what clients trained into the global model and the state.

        Parameters
        ----------
        server_round : int
            The round that ends with this call.
        updates : sequence of Update
            Valid answers, in any order.

        Returns
        -------
        dict
            The new global model, also kept as ``state.arrays``.
        """
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update)
        self.state.arrays = aggregate_parts(self.state.arrays, updates, self.head_columns)
        self.state.round = server_round
        return self.state.arrays

    def configure_probe(self, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Return the clients to measure before selection: those that never were."""
        if not self.needs_probe:
            return []
        new = [c for c in clients if not self.state.signatures.get(c.client_id)]
        return [Assignment(c.client_id, c.modalities) for c in new]

    def aggregate_probe(self, updates: Sequence[Update]) -> None:
        """Take over what probed clients measured; their parts are not kept."""
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update)

    def task(self, server_round: int, assignment: Assignment, *, probe: bool = False) -> Task:
        """Return what one client is sent: just the parts that it needs."""
        arrays = select_parts(self.state.arrays, assignment.modalities)
        return Task(assignment.modalities, arrays)

    def resolve_clients_per_round(self, available: int) -> int:
        """Return this round's number of clients among ``available``."""
        if self.clients_per_round >= 1:
            return min(int(self.clients_per_round), available)
        return min(max(math.ceil(self.clients_per_round * available), 2), available)

    # --- the loop --------------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial: Arrays | ServerState,
        *,
        num_rounds: int,
        settings: Mapping[str, Any] | None = None,
        round_settings: Callable[[int], Mapping[str, Any]] | None = None,
        callbacks: Sequence[Callback] = (),
        min_clients: int = 1,
        connect_timeout: float = 120.0,
        timeout: float = 3600.0,
        stop: threading.Event | None = None,
    ) -> ServerState:
        """Run the federation until ``num_rounds`` rounds are complete.

        Parameters
        ----------
        grid : Grid
            Flower's grid.
        initial : dict or ServerState
            The initial model by state-dict name, or a saved state to go on from.
        num_rounds : int
            The last round's number.
        settings : mapping, optional
            JSON values sent with every message.
        round_settings : callable, optional
            Further JSON values by round, e.g. the learning rate.
        callbacks : sequence of Callback, optional
            Hooks, called in this order.
        min_clients : int, default 1
            Clients to wait for before the first round.
        connect_timeout : float, default 120
            Seconds to wait for them.
        timeout : float, default 3600
            Seconds to wait for a round's answers.
        stop : threading.Event, optional
            Ends the federation at the next look, keeping the last complete round.

        Returns
        -------
        ServerState
            The state after the last complete round.

        Raises
        ------
        FederationError
            If no client could be enrolled, selected or used in a round.
        """
        self.state = initial if isinstance(initial, ServerState) else ServerState(arrays=initial)
        run = _Run(self, grid, dict(settings or {}), callbacks, timeout, stop or threading.Event())
        error: BaseException | None = None
        try:
            for callback in callbacks:
                callback.on_start(self, num_rounds)
            run.wait_for(min_clients, connect_timeout)
            for server_round in range(self.state.round + 1, num_rounds + 1):
                report = run.round(server_round, dict((round_settings or _nothing)(server_round)))
                # Every callback sees the round, also after one of them asked to stop.
                wishes = [callback.after_round(self, report) for callback in callbacks]
                if any(wishes):
                    break
        except Interrupted as interrupted:
            error = interrupted
        except BaseException as raised:
            error = raised
            raise
        finally:
            for callback in callbacks:
                callback.on_end(self, error)
        return self.state


def _nothing(_: int) -> Mapping[str, Any]:
    return {}


class _Run:
    """The transport half of a federation: nodes, messages, answers."""

    def __init__(
        self,
        strategy: ModalityStrategy,
        grid: Grid,
        settings: dict[str, Any],
        callbacks: Sequence[Callback],
        timeout: float,
        stop: threading.Event,
    ) -> None:
        self.strategy, self.grid, self.settings = strategy, grid, settings
        self.callbacks, self.timeout, self.stop = callbacks, timeout, stop
        self.fleet = Fleet()
        self.joined: list[ClientInfo] = []

    def wait_for(self, min_clients: int, seconds: float) -> None:
        """Wait until enough clients have enrolled; their number must also have settled."""
        deadline = time.monotonic() + seconds
        seen = -1
        while True:
            connected = len(list(self.grid.get_node_ids()))
            if connected >= max(min_clients, 1) and connected == seen:
                self.enrol(self.strategy.state.round + 1)
                if len(self.fleet.online()) >= min_clients:
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

    def round(self, server_round: int, round_settings: dict[str, Any]) -> RoundReport:
        """Run one round and report it."""
        started = time.monotonic()
        report = RoundReport(server_round)
        self.enrol(server_round, report)
        online = self.fleet.online()
        probes = self.strategy.configure_probe(online)
        if probes:
            measured = self.send(PROBE, server_round, probes, round_settings, report)
            self.strategy.aggregate_probe(measured)
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
        report.joined, self.joined = sorted(self.joined, key=lambda c: c.client_id), []
        report.bytes_down = sum(c.bytes_down for c in report.clients)
        report.bytes_up = sum(c.bytes_up for c in report.clients)
        report.seconds = time.monotonic() - started
        return report

    def enrol(self, server_round: int, report: RoundReport | None = None) -> None:
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
            except (ValueError, KeyError, TypeError) as error:
                if report is not None:
                    report.refused[f"node {node_id}"] = str(error)

    def _read_enrolment(self, node_id: int, answer: Answer) -> ClientInfo:
        if answer.content is None:
            self.fleet.refuse(node_id, answer.error)
            raise ValueError(answer.error)
        info, protocol, version = unpack_enrolment(answer.content)
        ours = (PROTOCOL_VERSION, self.strategy.app_version or version)
        if (protocol, version) != ours:
            reason = (
                f"client '{info.client_id}' runs version {version} (protocol {protocol}), the "
                f"server {ours[1]} (protocol {ours[0]}): install the same version on both"
            )
            self.fleet.refuse(node_id, reason)
            raise ValueError(reason)
        return info

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
        updates = []
        for node_id, assignment in sorted(by_node.items(), key=lambda item: item[1].client_id):
            entry, update = self._judge(phase, assignment, answers[node_id])
            report.clients.append(entry)
            if update is not None:
                updates.append(update)
        return updates

    def _judge(
        self, phase: str, assignment: Assignment, answer: Answer
    ) -> tuple[ClientReport, Update | None]:
        """Read one answer; a bad one is left out, with the reason in its report."""
        state = self.strategy.state
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
        expected = {} if phase == "probe" else select_parts(state.arrays, modalities)
        dimensions = {n: v.size for s in state.signatures.values() for n, v in s.items()}
        fault = find_fault(update, expected, dimensions=dimensions)
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
            timeout=self.timeout,
            on_reply=on_reply,
            should_stop=self.stop.is_set,
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "".join(f"\n  {client}: {reason}" for client, reason in sorted(failures.items()))
