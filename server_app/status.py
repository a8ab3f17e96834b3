"""Keeps ``status.json``: who is connected, what each client did last, and how the run stands."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress

from bmsfed_app.record.files import read_rows
from bmsfed_app.record.rows import ClientRow
from bmsfed_app.record.status import NAME, ClientStatus, RunStatus, State, now
from server_app.failures import is_failure
from server_app.history import client_row
from server_app.run_folder import RunFolder
from strategies import Callback, ClientInfo, Decisions, Paused, RoundReport
from strategies.callbacks import Connections
from strategies.federation.client_tests import TESTS
from strategies.federation.waiting import LATE


class StatusCallback(Callback):
    """Writes the run's status when something in it has changed.

    Parameters
    ----------
    folder : RunFolder
        Its history tells what clients did before the run was resumed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.file = folder, folder.path / NAME
        self.status = RunStatus(
            state="waiting",
            rounds=folder.config.rounds,
            process=os.getpid(),
            host=socket.gethostname(),
        )
        self._clients: dict[str, ClientStatus] = {}
        self._lock = threading.Lock()  # a round may be seen while the next one is under way

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Say that clients are waited for."""
        rows = read_rows(self.folder.history)[0] if self.folder.history.exists() else []
        with self._lock:
            self._know(strategy.state.clients.values())
            for row in rows:
                if isinstance(row, ClientRow):
                    self._count(row)
            self._write(round=strategy.state.round, rounds=num_rounds)

    def on_connections(self, connections: Connections) -> None:
        """Note who is there."""
        with self._lock:
            self._know(connections.clients.values())
            for client, known in self._clients.items():
                node = connections.nodes.get(client)
                there = {"connected": node is not None}
                self._clients[client] = known.model_copy(
                    update=there if node is None else there | {"node": str(node)}
                )
            self._write(refused={str(n): why for n, why in connections.refused.items()})

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Note the round under way."""
        if phase != "enrol":
            with self._lock:
                self._write(state="running", why="", round=server_round)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Note what its clients did."""
        with self._lock:
            self._know(strategy.state.clients.values())
            for client in report.clients:
                self._count(client_row(report.round, client))
            self._write()

    def after_failure(self, strategy: Decisions, report: RoundReport) -> None:
        """Say why the round is tried again."""
        with self._lock:
            for client in report.clients:
                self._count(client_row(report.round, client))
            self._write(state="waiting", why=report.failed)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Say how it ended."""
        ended: State = "paused" if isinstance(error, Paused) else "stopped"
        ended = "failed" if is_failure(error) else ended
        with self._lock:
            self._write(
                state="complete" if error is None else ended,
                why=str(error or ""),
                round=strategy.state.round,
            )

    def _know(self, clients: Iterable[ClientInfo]) -> None:
        for info in clients:
            held = {"modalities": list(info.modalities), "num_samples": info.num_samples}
            known = self._clients.get(info.client_id) or ClientStatus()
            self._clients[info.client_id] = known.model_copy(update=held)

    def _count(self, row: ClientRow) -> None:
        if row.status == LATE or row.phase in TESTS:  # no fault of its own; no part in the round
            return
        known, good = self._clients.get(row.client) or ClientStatus(), row.status == "ok"
        fault = not good and row.status != LATE
        self._clients[row.client] = known.model_copy(
            update={
                "last_round": row.round if good else known.last_round,
                "ratio": row.ratio or known.ratio,
                "failures": known.failures + fault,
                "last_failure": row.status if fault else known.last_failure,
                "bytes_down": known.bytes_down + row.bytes_down,
                "bytes_up": known.bytes_up + row.bytes_up,
                "seconds": row.seconds,
            }
        )

    def _write(self, **changes: object) -> None:
        """Write what has changed; a full disk is for those to report who write what is needed."""
        clients = dict(sorted(self._clients.items()))
        status = self.status.model_copy(update={**changes, "clients": clients})
        if status == self.status and status.updated:
            return
        self.status = status.model_copy(update={"updated": now()})
        temporary = self.file.with_name(self.file.name + ".tmp")
        with suppress(OSError):
            temporary.write_text(self.status.model_dump_json(indent=1) + "\n", encoding="utf-8")
            temporary.replace(self.file)
