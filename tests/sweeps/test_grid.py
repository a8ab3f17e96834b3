"""What a sweep says of its runs while it goes on."""

import json
from pathlib import Path

import pytest
import yaml

from bmsfed_app.cli.sweep.grid import Board
from bmsfed_app.cli.sweep.runs import check_complete, other_data
from bmsfed_app.cli.sweep.work import Outcome
from bmsfed_app.config import load_config
from bmsfed_app.sweeps import load_sweep
from tests.run_folders import make_run


@pytest.mark.parametrize(
    ("metric", "last", "said"),
    [
        ("accuracy", 0.8604, ", accuracy 86.0 %"),  # as everywhere else
        ("loss", 1.23456, ", loss 1.235"),
        ("mine", 0.5, ""),  # the run has no such metric
        ("accuracy_by_modality", {"gray": {"last": 0.5}}, ""),
    ],
)
def test_a_run_that_is_complete_says_what_it_came_to(
    metric: str, last: object, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    found = {"methods": ["fedavg"], "datasets": ["cg-digits"], "seeds": [0], "metric": [metric]}
    file.write_text(yaml.safe_dump(found))
    sweep = load_sweep(str(file))
    (run,) = sweep.runs
    board = Board(sweep, tmp_path / "runs")
    metrics = [
        {"name": "accuracy", "title": "all modalities", "unit": "%"},
        {"name": "loss", "title": "loss"},
        {"name": "accuracy_by_modality", "title": "{modality} alone", "unit": "%"},
    ]
    folder = make_run(run.folder(tmp_path / "runs"), info={"metrics": metrics})
    told = last if isinstance(last, dict) else {"last": last}
    (folder / "summary.json").write_text(json.dumps({"complete": True, "rounds": 3, metric: told}))
    board.end(run, Outcome("complete"))
    assert board.result(run).startswith(f"complete{said}, ")


def test_a_run_that_is_complete_on_other_data_is_not_taken_for_done(tmp_path: Path) -> None:
    file, root = tmp_path / "mine.yaml", tmp_path / "runs"
    found = {"methods": ["fedavg", "bmsfed", "divfl"], "datasets": ["cg-digits"], "seeds": [0]}
    file.write_text(yaml.safe_dump(found))
    sweep = load_sweep(str(file))
    here = load_config("cg-digits").check_data().fingerprint
    for run, data in zip(sweep.runs, [here, "0123456789abcdef", ""], strict=True):
        folder = make_run(run.folder(root), info={"data": data})
        (folder / "summary.json").write_text(json.dumps({"complete": True, "rounds": 3}))
    board = Board(sweep, root)
    check_complete(board)
    assert [run.method for run in board.of("complete")] == ["fedavg", "divfl"]
    (said,) = board.lost(sweep.runs)
    assert said.startswith("bmsfed, cg-digits, seed 0: failed: it is complete on other data (")
    assert said.endswith("move its folder away, or take another by --runs")


def test_a_partition_file_that_changed_or_is_gone(tmp_path: Path) -> None:
    given = {"partition": "file", "partition_file": str(tmp_path / "who.csv")}
    Path(given["partition_file"]).write_text("client,sample\na,0\nb,1\n")
    config = load_config("cg-digits", given)
    folder, account = make_run(tmp_path / "run"), config.check_data()
    about = json.loads((folder / "run.json").read_text())
    about |= {"data": account.fingerprint, "partition_file": "0123456789abcdef"}
    (folder / "run.json").write_text(json.dumps(about))
    assert "other data (its partition file)" in other_data(config, folder, account)
    Path(given["partition_file"]).unlink()
    assert other_data(config, folder, account) == ""
