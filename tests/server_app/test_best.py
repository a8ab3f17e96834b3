"""The best round by validation is kept, and a run that gets no better ends; both survive kills."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.cli.main import main
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.evaluation import read_evaluation
from bmsfed_app.record.files import append_rows
from bmsfed_app.record.rows import RoundRow
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.best import EarlyStopping, KeepBest, ended_early
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import FedAvg, RoundReport, ServerState

SMALL: dict[str, Any] = {"clients": 3, "per_round": 2, "data_fraction": 0.1, "method": "fedavg"}
SMALL |= {"encoders": {"colored": "mlp", "gray": "mlp"}}
#: Too little to change any answer.
STILL = SMALL | {"validation": 0.1, "lr": 1e-12, "lr_min": 1e-12, "stop_after": 2, "rounds": 6}


def folder(path: Path, **overrides: object) -> RunFolder:
    found = load_config("cg-digits", SMALL | {"validation": 0.1} | overrides)
    return RunFolder.create(path, found)


def after(run: RunFolder, number: int, accuracy: float) -> tuple[FedAvg, RoundReport]:
    """Record a round as the callbacks before do."""
    strategy = FedAvg()
    strategy.state = ServerState(round=number, arrays={"head.bias": np.full(2, number, "f4")})
    row = RoundRow(kind="round", round=number, **{"validation_accuracy": accuracy})
    append_rows(run.history, [row])
    run.save_checkpoint(strategy.state)
    return strategy, RoundReport(number, metrics={"validation_accuracy": accuracy})


@pytest.mark.parametrize("key", [{"keep": "best"}, {"stop_after": 3}])
def test_without_validation_both_are_refused(key: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="goes by validation, and the test split may choose"):
        load_config("cg-digits", key)


def test_the_first_of_the_best_rounds_is_kept(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", keep="best")
    keeper, kept = KeepBest(run), []
    for number, accuracy in enumerate([0.2, 0.5, 0.5, 0.4], 1):
        keeper.after_round(*after(run, number, accuracy))
        kept.append(run.checkpoints.best_round(run.config))
    assert kept == [1, 2, 2, 2]


def test_killed_before_the_best_was_kept_it_is_kept_in_going_on(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", keep="best")
    KeepBest(run).after_round(*after(run, 1, 0.2))
    strategy, _ = after(run, 2, 0.5)
    again = KeepBest(run)
    again.on_start(strategy, 9)
    assert run.checkpoints.best_round(run.config) == 2
    again.after_round(*after(run, 3, 0.4))
    assert run.checkpoints.best_round(run.config) == 2


def test_going_back_before_the_best_puts_it_aside_and_the_next_best_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = folder(tmp_path / "run", keep="best")
    keeper = KeepBest(run)
    for number, accuracy in enumerate([0.3, 0.2, 0.5], 1):
        strategy, report = after(run, number, accuracy)
        keeper.after_round(strategy, report)
    run.go_back(2)
    assert list(run.path.glob("cut/*/checkpoint-best.safetensors"))
    assert run.checkpoints.best_round(run.config) is None
    strategy.state.round = 2
    again = KeepBest(run)
    again.on_start(strategy, 9)
    assert "round 1, the best by validation, is gone" in caplog.text
    again.after_round(*after(run, 3, 0.25))
    assert run.checkpoints.best_round(run.config) == 3


def test_evaluations_without_a_rise_are_counted_over_a_resumed_run_too(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", stop_after=2)
    stopper = EarlyStopping(run)
    assert [stopper.after_round(*after(run, n, a)) for n, a in ((1, 0.2), (2, 0.4), (3, 0.4))] == [
        False
    ] * 3
    assert not stopper.after_round(FedAvg(), RoundReport(4)), "a round without evaluation"
    again = EarlyStopping(run)
    again.on_start(FedAvg(), 9)
    strategy, report = after(run, 5, 0.3)
    assert again.after_round(strategy, report)
    assert "above the 40.0 % of round 2 for 2 evaluations" in report.ended


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_that_gets_no_better_is_complete_and_stays_so(tmp_path: Path, overlap: bool) -> None:
    config = load_config("cg-digits", STILL | {"keep": "best"})
    run = RunFolder.create(tmp_path / "run", config)
    assert run_experiment(InlineGrid(app, 3), run, overlap=overlap).round == 3
    found = read_run(run.path)
    assert found.complete
    assert "round 1 for 2 evaluations" in found.notes[0]
    evaluation = read_evaluation(run.path)
    assert evaluation is not None
    assert evaluation.best is not None
    assert (evaluation.last.round, evaluation.best.round) == (3, 1)
    again = RunFolder.reopen(run.path)
    assert run_experiment(InlineGrid(app, 3), again, overlap=overlap).round == 3
    assert [r.round for r in read_run(run.path).rounds] == [0, 1, 2, 3]


def test_going_back_a_run_that_ended_goes_on(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", load_config("cg-digits", STILL))
    run_experiment(InlineGrid(app, 3), run)
    run.go_back(2)
    assert not ended_early(run)
    assert run_experiment(InlineGrid(app, 3), RunFolder.reopen(run.path)).round == 3


def test_the_last_line_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [f"{key}={value}" for key, value in STILL.items() if key not in ("method", "rounds")]
    told = ["run", "cg-digits", "--method", "fedavg", "--rounds", "6", "--out", str(tmp_path / "r")]
    told += [word for pair in [*sets, "engine=inline"] for word in ("--set", pair)]
    monkeypatch.setattr("sys.argv", ["bmsfed", *told])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("bmsfed: complete: the validation accuracy has not risen above the")
