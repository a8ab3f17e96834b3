"""A run whose clients' answers are no good ends as failed, and says which and why."""

import json
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from benchmarks.common import client
from bmsfed_app.cli.main import main
from bmsfed_app.config import ExperimentConfig, check_config
from bmsfed_app.datasets import DataError, Renderer, Split, ensure_prepared
from bmsfed_app.models import NetworkSpec, build_network
from bmsfed_app.record.run import read_run
from bmsfed_app.record.status import read_status
from server_app.app import app as server_app
from server_app.console import TableCallback
from server_app.evaluation import Evaluator
from server_app.experiment import run_experiment
from server_app.failures import ending
from server_app.run_folder import RunFolder
from strategies import FederationError
from strategies.testing import FakeGrid, Handler
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
    assert str(ended.error).startswith("round 1: no client gave a usable answer\n  bob: ")
    assert str(ended.error).count("standardise modality 'face'") == 2


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
