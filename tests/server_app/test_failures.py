"""A run whose clients' answers are no good ends as failed, and says which and why."""

import json
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from benchmarks.common import client
from bmsfed_app.cli.main import main
from bmsfed_app.config import ConfigError, ExperimentConfig, check_config
from bmsfed_app.datasets import DataError, Renderer, Split, ensure_prepared
from bmsfed_app.models import NetworkSpec, build_network
from bmsfed_app.record.files import read_rows
from bmsfed_app.record.rows import FailedRow
from bmsfed_app.record.run import read_run
from bmsfed_app.record.status import read_status
from server_app.app import app as server_app
from server_app.console import TableCallback
from server_app.evaluation import Evaluator
from server_app.experiment import run_experiment
from server_app.failures import FailureLimit, ending
from server_app.run_folder import RunFolder
from strategies import (
    ClientReport,
    Deadline,
    FederationError,
    ModalityStrategy,
    Paused,
    RoundReport,
)
from strategies.federation.waiting import LATE
from strategies.testing import FakeClock, FakeGrid, Handler
from tests import synthetic
from tests.own_table import SETTINGS, write_table

ACTORS = ["ann", "bob", "cat", "dan"]
#: What makes a client's numbers overflow, at the first look.
HUGE = 1e25


@dataclass
class Ended:
    """How a run ended."""

    folder: RunFolder
    error: Exception | None
    printed: list[str]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder.path / "summary.json").read_text())
        return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    # A device's own numbers are seen by nobody before it trains.
    monkeypatch.setattr("bmsfed_app.datasets.preparation.check_ranges", lambda *of: [])
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)  # clients set that of their process


def experiment(data: Path, face: Sequence[float], **more: Any) -> ExperimentConfig:
    values = {"dataset": "table", "data_dir": str(write_table(data, ACTORS, face=face))}
    values |= {"dataset_settings": SETTINGS, "partition": "natural", "clients": 4, "device": "cpu"}
    values |= {"encoders": dict.fromkeys(SETTINGS["modalities"], "identity")}
    config = check_config(values | {"connect_timeout": 600, "rounds": 3} | more)
    ensure_prepared("table", data, config.dataset_settings)
    return config


def broken(answer: Handler) -> Handler:
    """A client that enrols, and can do nothing else."""

    def fail(message: Message) -> RecordDict:
        if message.metadata.message_type == "query.enrol":
            return answer(message)
        raise OSError(28, "No space left on device")

    return fail


def end(folder: RunFolder, stop: threading.Event | None = None, ill: Sequence[int] = ()) -> Ended:
    """Run a folder's experiment to its end; the clients ``ill`` are broken."""
    nodes = {i: client(i, 4) for i in range(4)}
    grid = FakeGrid({f"node {i}": broken(n) if i in ill else n for i, n in nodes.items()})
    printed: list[str] = []
    error = None
    try:
        run_experiment(grid, folder, callbacks=[TableCallback(folder, printed.append)], stop=stop)
    except (FederationError, DataError) as raised:
        error = raised
    return Ended(folder, error, printed)


def ran(where: Path, face: Sequence[float], **more: Any) -> Ended:
    return end(RunFolder.create(where / "run", experiment(where / "data", face, **more)))


def test_a_run_with_too_many_answers_left_out_has_failed(tmp_path: Path) -> None:
    # Three are asked to measure themselves in every round, and cannot; the fourth trains.
    ended = ran(tmp_path, [HUGE, HUGE, HUGE, 1], method="bmsfed")
    assert str(ended.error).startswith(
        "9 of 13 answers were left out, more than max_failures (0.5)"
    )
    assert "\n  9 times, first from ann in round 1: " in str(ended.error)
    assert "standardise modality 'face', whose inputs reach " in str(ended.error)
    assert (ended.summary["complete"], ended.summary["failed"]) == (False, str(ended.error))
    assert f"FAILED after round 3: {ended.error}" in ended.printed
    run = read_run(ended.folder.path)
    assert [r.round for r in run.rounds] == [0, 1, 2, 3]
    assert not run.complete
    assert run.notes == [f"Ended as failed: {ended.error}"]
    # Nothing is left to be run: going on does not make it a complete one.
    again = end(RunFolder.reopen(ended.folder.path))
    assert str(again.error) == str(ended.error)
    assert again.summary == ended.summary


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    ended = ran(tmp_path, [HUGE, HUGE, HUGE, 1], method="bmsfed", max_failures=0.7)
    assert (ended.error, ended.summary["complete"], ended.summary["failed"]) == (None, True, "")


def test_it_ends_early_and_goes_on_once_the_cause_is_mended(tmp_path: Path) -> None:
    config = experiment(tmp_path / "data", [1] * 4, method="bmsfed", rounds=12)
    ended = end(RunFolder.create(tmp_path / "run", config), ill=[0, 1, 2])
    assert str(ended.error).startswith("9 of 13 answers")  # the first time that ten were asked for
    assert "9 times, first from ann in round 1: OSError: " in str(ended.error)
    assert ended.summary["rounds"] == 3
    again = end(RunFolder.reopen(ended.folder.path))
    assert again.error is None
    assert (again.summary["complete"], again.summary["rounds"]) == (True, 12)


def test_a_round_without_any_answer_ends_it_at_once(tmp_path: Path) -> None:
    ended = ran(tmp_path, [HUGE] * 4, method="fedavg")
    assert isinstance(ended.error, FederationError)
    assert ended.summary["failed"] == str(ended.error)
    assert str(ended.error).startswith("round 1: no client gave a usable answer\n  ann: ")
    assert str(ended.error).count("standardise modality 'face'") == 4  # the others were tried too


def test_to_stop_a_run_is_no_failure(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    folder = RunFolder.create(tmp_path / "run", experiment(tmp_path / "data", [1] * 4))
    ended = end(folder, stop)
    assert (ended.error, ended.summary["complete"], ended.summary["failed"]) == (None, False, "")
    assert "ended after round 0: stopped on request" in ended.printed


def test_the_command_line_says_that_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def simulate(*_: object) -> Exception:
        return FederationError("12 of 20 answers were left out")

    monkeypatch.setattr("bmsfed_app.cli.simulate.simulate", simulate)
    monkeypatch.setattr("sys.argv", ["bmsfed", "run", "cg-digits", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "bmsfed: FAILED: 12 of 20 answers were left out"


def test_test_samples_that_are_not_finite_are_named() -> None:
    values = {m: torch.zeros(9, d) for m, d in synthetic.WIDTHS.items()}
    values["sound"][[4, 7], 1] = torch.tensor([torch.nan, torch.inf])
    renderers = {m: Renderer((m,), lambda x: x) for m in values}
    split = Split(torch.arange(9) % 3, values, renderers)
    spec: NetworkSpec = synthetic.spec()
    model = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    evaluator = Evaluator(spec, split, torch.device("cpu"))
    with pytest.raises(
        DataError, match=r"test split: modality 'sound' of 2 of 9 .* \(4, 7\): mend"
    ):
        evaluator(model)


def test_the_last_line_says_how_a_run_ended_and_the_log_has_every_line(tmp_path: Path) -> None:
    ended = ran(tmp_path, [HUGE] * 4, method="fedavg")
    log = (ended.folder.path / "run.log").read_text()
    for line in ended.printed:
        assert f"INFO    {line}\n" in log
    line = ending(ended.error, "nothing")
    assert line.startswith("FAILED: round 1: no client gave a usable answer; ")
    assert "\n" not in line
    assert ending(None, "") == "complete"
    assert ending(KeyboardInterrupt(), "CMD") == "stopped; go on with: CMD"


@pytest.mark.parametrize("good", [True, False])
def test_the_server_app_says_last_how_it_ended(
    good: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment(tmp_path / "data", [1 if good else HUGE] * 4, method="fedavg", rounds=1)
    out = tmp_path / "run"
    RunFolder.create(out, config)
    nodes = {f"node {i}": client(i, 4) for i in range(4)}
    context = Context(0, 0, {}, RecordDict(), {"resume": str(out)})
    try:
        server_app(FakeGrid(nodes), context)
    except FederationError as error:
        printed = "".join(traceback.format_exception(error))  # as Flower does
        assert printed.splitlines()[-1].startswith("bmsfed: FAILED: round 1: no client gave")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "bmsfed: complete" if good else last.startswith("bmsfed: FAILED: round 1: no ")
    logged = (out / "run.log").read_text().splitlines()[-1]
    assert logged.endswith("INFO    " + last.removeprefix("bmsfed: "))
    status = read_status(out)
    assert status.state == ("complete" if good else "failed")


# --- clients that are gone for a while -----------------------------------------------------------


def away(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, back: float) -> Ended:
    """All four go down when they are told to train in round 2, and are back after so long."""
    clock = FakeClock()
    waiting = ExperimentConfig.waiting
    monkeypatch.setattr(
        ExperimentConfig, "waiting", lambda *of, **how: replace(waiting(*of, **how), clock=clock)
    )
    fallen: list[float] = []

    def falling(answer: Handler) -> Handler:
        def handler(message: Message) -> RecordDict:
            training = message.metadata.message_type == "train"
            if training and message.metadata.group_id == "2" and not fallen:
                fallen.append(clock.monotonic())
                grid.offline = set(grid.handlers)
                clock.at(clock.monotonic() + back, grid.offline.clear)
            return answer(message)

        return handler

    grid = FakeGrid({f"node {i}": falling(client(i, 4)) for i in range(4)}, clock=clock)
    printed: list[str] = []
    error = None
    try:
        run_experiment(grid, folder, callbacks=[TableCallback(folder, printed.append)])
    except FederationError as raised:
        error = raised
    return Ended(folder, error, printed)


def test_a_try_that_came_to_nothing_is_a_row_and_no_failure_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(tmp_path / "data", [1] * 4, method="bmsfed", max_failures=0)
    folder = RunFolder.create(tmp_path / "run", config)
    ended = away(folder, monkeypatch, back=10)
    assert ended.error is None
    assert (ended.summary["complete"], ended.summary["paused"]) == (True, "")
    rows = [r for r in read_rows(folder.history)[0] if isinstance(r, FailedRow)]
    [failed] = rows
    assert (failed.round, failed.attempt) == (2, 0)
    assert failed.reason == "no client gave a usable answer"
    assert set(failed.failures) == set(failed.assignments)
    run = read_run(folder.path)
    assert [r.round for r in run.rounds] == [0, 1, 2, 3]
    assert run.left_out[0] == 0
    assert "1 tries of rounds came to nothing (round 2)." in run.notes
    assert "Round 2, try 1: no client gave a usable answer." in run.notes
    assert any("round 2, try 1: no client gave a usable answer" in line for line in ended.printed)
    whole = end(RunFolder.create(tmp_path / "whole", config))
    assert whole.error is None


def test_a_run_without_clients_is_paused_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(tmp_path / "data", [1] * 4, method="bmsfed")
    folder = RunFolder.create(tmp_path / "run", config)
    ended = away(folder, monkeypatch, back=1e9)
    assert isinstance(ended.error, Paused)
    summary = ended.summary
    assert (summary["complete"], summary["failed"], summary["rounds"]) == (False, "", 1)
    assert summary["paused"] == str(ended.error)
    assert "within 300 s of patience\n  not connected: ann, bob, cat, dan" in summary["paused"]
    assert f"paused after round 1: {ended.error}" in ended.printed
    assert f"Paused after round 1 of 3: {ended.error}" in read_run(folder.path).notes
    status = read_status(folder.path)
    assert (status.state, status.round, status.why) == ("paused", 1, str(ended.error))
    monkeypatch.undo()
    monkeypatch.setattr("bmsfed_app.datasets.preparation.check_ranges", lambda *of: [])
    again = end(RunFolder.reopen(folder.path))
    assert (again.error, again.summary["complete"], again.summary["paused"]) == (None, True, "")
    whole = end(RunFolder.create(tmp_path / "whole", config))
    model = "model.safetensors"
    assert (folder.path / model).read_bytes() == (whole.folder.path / model).read_bytes()
    # That it had to wait is still known.
    assert [r.round for r in read_rows(folder.history)[0] if isinstance(r, FailedRow)] == [2]


def test_late_answers_are_no_failures(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", experiment(tmp_path / "data", [1] * 4))
    limit = FailureLimit(folder)
    limit.limit = 0.4
    report = RoundReport(3, clients=[ClientReport(n, "train", ("face",)) for n in ACTORS])
    for entry in report.clients[1:]:
        entry.status = LATE
    limit.after_round(ModalityStrategy(), report)
    report.clients[0].status = "no answer within 9 s"
    with pytest.raises(FederationError, match="1 of 2 answers"):
        limit.after_round(ModalityStrategy(), report)


def test_the_command_line_says_that_it_is_paused_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bmsfed_app.cli.simulate.simulate", lambda *of: Paused("nobody is there"))
    out = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["bmsfed", "run", "cg-digits", "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"bmsfed: PAUSED: nobody is there; go on with: bmsfed run --resume {out}"


@pytest.mark.parametrize(
    ("given", "over_flower", "simulated"),
    [
        ({}, Deadline(factor=3), Deadline()),
        ({"deadline": 20}, Deadline(seconds=20), Deadline(seconds=20)),
        ({"deadline": 0}, Deadline(), Deadline()),
    ],
)
def test_a_busy_machine_closes_no_simulated_round(
    tmp_path: Path, given: dict[str, Any], over_flower: Deadline, simulated: Deadline
) -> None:
    config = check_config({"dataset": "cg-digits"} | given)
    assert config.waiting().deadline == over_flower
    assert config.waiting(simulated=True).deadline == simulated


def test_a_deadline_that_is_none_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"deadline.*give seconds, or a factor above 1"):
        check_config({"dataset": "cg-digits", "deadline": "soon"})
