"""``status.json`` and `bmsfed nodes`: who is there, what each client did, how the run stands."""

import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.common import client
from bmsfed_app.cli import nodes
from bmsfed_app.cli.main import cli
from bmsfed_app.config import load_config
from bmsfed_app.record.files import RunFolderError, read_rows
from bmsfed_app.record.rows import ClientRow, RoundRow
from bmsfed_app.record.status import RunStatus, read_status
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, FederationError, RoundReport
from strategies.callbacks import Connections
from strategies.testing import FakeGrid
from tests.server_app.test_overlapped_runs import SMALL

CLIENTS = 4


class Looks(Callback):
    """Reads the status whenever it may have changed."""

    def __init__(self, folder: Path, grid: FakeGrid) -> None:
        self.folder, self.grid = folder, grid
        self.seen: list[tuple[str, int]] = []
        self.connected: list[int] = []

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        self._look()

    def on_connections(self, connections: Connections) -> None:
        self._look()

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        self._look()
        if report.round == 1:
            self.grid.offline = {"node 3"}

    def _look(self) -> None:
        status = read_status(self.folder)
        self.seen.append((status.state, status.round))
        self.connected.append(sum(of.connected for of in status.clients.values()))


def refused(_: object) -> None:
    raise ValueError("my data folder is gone")


def test_it_says_who_is_there_and_what_each_client_did(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL | {"clients": 0}))
    handlers = {f"node {i}": client(i, CLIENTS) for i in range(CLIENTS)} | {"node 9": refused}
    grid = FakeGrid(handlers)  # type: ignore[arg-type]
    looks = Looks(folder.path, grid)
    run_experiment(grid, folder, callbacks=[looks], overlap=False)
    assert looks.seen[0] == ("waiting", 0)
    assert looks.seen[-1] == ("running", 3)
    assert looks.connected[0] == 0
    assert looks.connected[-1] == CLIENTS - 1  # one has left
    status = read_status(folder.path)
    assert (status.state, status.why, status.round, status.rounds) == ("complete", "", 3, 3)
    assert (status.process, status.host) == (os.getpid(), socket.gethostname())
    assert len(status.clients) == CLIENTS
    assert sorted(of.connected for of in status.clients.values()) == [False, True, True, True]
    assert list(status.refused.values()) == ["ValueError: my data folder is gone"]
    # The same numbers, from the history.
    rows = [r for r in read_rows(folder.history)[0] if isinstance(r, ClientRow)]
    for name, of in status.clients.items():
        mine = [r for r in rows if r.client == name]
        assert of.bytes_up == sum(r.bytes_up for r in mine)
        assert of.bytes_down == sum(r.bytes_down for r in mine)
        assert of.failures == sum(r.status != "ok" for r in mine)
        assert of.last_round == max((r.round for r in mine if r.status == "ok"), default=None)
        assert of.modalities == ["colored", "gray"]
        assert of.num_samples > 0
        assert int(of.node) > 0
    # A run that is resumed knows what was before.
    again = RunFolder.reopen(folder.path)
    grid.offline = set()
    run_experiment(grid, again)
    for name, of in read_status(folder.path).clients.items():
        assert of.bytes_up == status.clients[name].bytes_up


def test_why_a_run_failed_is_in_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL))
    with pytest.raises(FederationError) as raised:
        run_experiment(FakeGrid({f"node {i}": refused for i in range(4)}), folder)  # type: ignore[dict-item]
    status = read_status(folder.path)
    assert (status.state, status.why) == ("failed", str(raised.value))


def test_nodes_shows_a_run_and_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL))
    missing = CliRunner().invoke(cli, ["nodes", str(folder.path)])
    assert isinstance(missing.exception, RunFolderError)
    assert "status.json: it has not begun" in str(missing.exception)
    of = {"node": "123456789", "connected": True, "modalities": ["colored", "gray"]}
    of |= {"num_samples": 77, "last_round": 2, "ratio": {"gray": 1.25}, "failures": 1}
    of |= {"last_failure": "no answer within 9 s", "bytes_up": 3 * 2**20, "seconds": 4.5}
    status = {"state": "running", "round": 3, "rounds": 9, "process": os.getpid()}
    status |= {"host": socket.gethostname(), "updated": "2026-01-02T03:04:05+00:00"}
    status |= {"clients": {"[alice]": of, "bob": {}}, "refused": {"77": "old version"}}
    file = folder.path / "status.json"
    file.write_text(RunStatus.model_validate(status).model_dump_json())
    output = CliRunner().invoke(cli, ["nodes", str(folder.path)], catch_exceptions=False).output
    assert "running\nround 3 of 9, 1 of 2 known clients connected, at 2026-01-02 03:04:05" in output
    [alice] = [line for line in output.splitlines() if line.startswith("[alice]")]
    assert alice.split() == (
        "[alice] 123456789 colored+gray 77 2 gray 1.25 1 0.0M 3.0M 4.5 no answer within 9 s".split()
    )
    assert "not connected" in output
    assert "refused: node 77: old version" in output
    assert CliRunner().invoke(cli, ["nodes", "show", str(folder.path)]).output == output

    def ends(_: float) -> None:
        ended = status | {"state": "failed", "why": "no client gave a usable answer"}
        file.write_text(RunStatus.model_validate(ended).model_dump_json())

    monkeypatch.setattr(nodes.time, "sleep", ends)
    output = CliRunner().invoke(cli, ["nodes", str(folder.path), "--watch"]).output
    assert "failed: no client gave a usable answer" in output


def test_a_run_that_was_killed_is_not_going_on() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    here = socket.gethostname()
    assert RunStatus(state="running", process=child, host=here).killed
    assert RunStatus(state="running", process=os.getpid(), host=here).going_on
    assert RunStatus(state="running", process=child, host="elsewhere").going_on
    assert not RunStatus(state="complete", process=child, host=here).killed


def test_a_status_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits", SMALL))
    (folder.path / "status.json.tmp").mkdir()
    run_experiment(FakeGrid({f"node {i}": client(i, CLIENTS) for i in range(CLIENTS)}), folder)
    rounds = [r.round for r in read_rows(folder.history)[0] if isinstance(r, RoundRow)]
    assert rounds == [0, 1, 2, 3]
