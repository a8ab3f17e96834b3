"""What a run says of its data, and that it goes on with no other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.cli import simulate
from bmsfed_app.cli.main import main
from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid, run_apps
from bmsfed_app.record.files import RunFolderError, read_json, write_json
from bmsfed_app.record.rows import RunInfo
from client_app.app import app as client_app
from server_app.app import app, folder_from_run_config
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from tests.readings import register, rows, write


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    register(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    listed = rows()
    listed[1][4] = listed[5][4] = "film"
    return write(tmp_path / "data", listed)


def new_run(data: Path, path: Path, **given: Any) -> RunFolder:
    small = {"clients": 2, "per_round": 2, "rounds": 1, "method": "fedavg", "connect_timeout": 600}
    return RunFolder.create(path, load_config("readings", small | {"data_dir": str(data)} | given))


def federate(folder: RunFolder) -> None:
    run_experiment(InlineGrid(client_app, 2), folder)


def test_a_run_says_what_data_it_saw_and_goes_on_with_no_other(data: Path, tmp_path: Path) -> None:
    run = new_run(data, tmp_path / "run")
    federate(run)
    said = json.loads(run.info_file.read_text())
    assert said["data"] == run.config.check_data().fingerprint
    assert said["samples"] == {
        "train": {
            "listed": 16,
            "used": 15,
            "left_out": {"shares its origin with a test sample": 1},
        },
        "test": {"listed": 4, "used": 4, "left_out": {}},
    }
    federate(RunFolder.reopen(run.path))  # nothing has changed
    write(data, rows()[:-2], files=False)
    message = "on other data: 16 train samples were listed, 14 are now; bring the data back"
    with pytest.raises(RunFolderError, match=message):
        federate(RunFolder.reopen(run.path))
    run.config.check_data()  # another run's start prepares it anew
    with pytest.raises(RunFolderError, match="on other data: 15 train samples were used, 14 are"):
        federate(RunFolder.reopen(run.path))


def test_a_run_does_not_go_on_with_another_partition_file(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    file.write_text("client,sample\na,2\nb,3\na,4\n")
    given = {"partition": "file", "partition_file": str(file)}
    run = new_run(data, tmp_path / "run", **given)
    federate(run)
    other = new_run(data, tmp_path / "plain")
    other.record_data(other.config.check_data())
    by_file, plain = (read_json(r.info_file, RunInfo) for r in (run, other))
    assert by_file.partition_file
    assert by_file.data == plain.data
    file.write_text("client,sample\na,2\nb,4\na,3\n")
    with pytest.raises(RunFolderError, match="on other data: its partition file has changed"):
        federate(RunFolder.reopen(run.path))


def test_a_run_of_an_older_version_goes_on_with_a_note(data: Path, tmp_path: Path) -> None:
    run = new_run(data, tmp_path / "run")
    federate(run)
    info = read_json(run.info_file, RunInfo)
    write_json(run.info_file, info.model_copy(update={"data": "", "samples": {}}))
    again = RunFolder.reopen(run.path)
    lines = again.record_data(again.config.check_data())
    assert lines[-1].startswith("note: whether the run began on this data is not known")
    assert read_json(run.info_file, RunInfo).data == ""


def test_every_start_prints_what_is_left_out(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(simulate, "simulate", lambda *_: None)
    out = tmp_path / "run"
    given = ("readings", "--data-dir", str(data), "--set", "title=night", "--clients", "2")
    said = "train: 16 listed, 15 used; left out: 1 x shares its origin with a test sample (1)\n"
    for arguments in (
        ("run", *given, "--out", str(out)),
        ("run", "--resume", str(out)),
        ("data", "prepare", *given[:-2]),
        ("data", "check", *given[:-2]),
    ):
        monkeypatch.setattr(sys, "argv", ["bmsfed", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code, arguments
        printed = capsys.readouterr().out
        assert said in printed, arguments
        assert "test: 4 listed, 4 used\n" in printed
    assert read_json(out / "run.json", RunInfo).dataset == "night"


def test_flwr_run_prints_it_too_and_refuses_other_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"config": "readings", "data-dir": str(data), "method": "fedavg", "rounds": 1}
    given |= {"set": "clients=2 per_round=2 connect_timeout=600"}

    def start(**folder: str) -> None:
        run_apps(app, InlineGrid(client_app, 2), given | folder)

    start(out=str(tmp_path / "run"))
    assert capsys.readouterr().out.startswith("train: 16 listed, 15 used; left out: 1 x shares its")
    np.save(data / "2.npy", np.zeros(2, dtype=np.float32))
    with pytest.raises(RunFolderError, match=r"on other data: files have changed: 2\.npy"):
        start(resume=str(tmp_path / "run"))


def test_run_folders_are_named_by_the_users_name_of_the_data(data: Path) -> None:
    given = {"config": "readings", "data-dir": str(data), "set": "title=night clients=2"}
    assert folder_from_run_config(given).path.name.endswith("-bmsfed-night-s0")
