"""Run folders are the same whether rounds overlap or not, and whenever a run is killed."""

import errno
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import client
from benchmarks.same_histories import differences
from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.record.files import RunFolderError
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, Metric, RoundReport, ServerState
from strategies.testing import FakeGrid

CLIENTS, ROUNDS = 4, 3
SMALL: dict[str, Any] = {
    "clients": CLIENTS,
    "per_round": 2,
    "rounds": ROUNDS,
    "data_fraction": 0.05,
    "local_epochs": 1,
    "method": "bmsfed",
    "encoders": {"colored": "mlp", "gray": "mlp"},
    "connect_timeout": 600,
}


class Behind(Callback):
    """Lets a round be recorded only once the next one's tasks are with the clients."""

    metrics = (Metric("never", "never measured"),)  # who declares one is called before recording

    def __init__(self, folder: Path) -> None:
        self.folder, self.training, self.latest = folder, threading.Event(), 0
        self.behind: list[int] = []

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        if phase == "train":
            self.latest = server_round
            if server_round > 1:
                keep(self.folder, f"training {server_round}")
                self.training.set()

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if report.round < ROUNDS:
            assert self.training.wait(600)
            self.training.clear()
        self.behind.append(self.latest - report.round)


class Recorded(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        keep(self.folder, f"recorded {report.round}")


def keep(folder: Path, moment: str) -> None:
    """Copy the folder as a run that was killed at this moment would leave it."""
    shutil.copytree(folder, folder.parent / moment)


def run(folder: RunFolder, *callbacks: Callback, overlap: bool = True) -> ServerState:
    grid = FakeGrid({f"node {i}": client(i, CLIENTS) for i in range(CLIENTS)})
    return run_experiment(grid, folder, callbacks=callbacks, overlap=overlap)


def same(one: Path, other: Path) -> None:
    assert differences(one, other) == []
    for file in ("checkpoint.safetensors", "clients.json", "summary.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rounds wait for each other."""
    folder = RunFolder.create(tmp_path_factory.mktemp("in turn") / "run", config())
    run(folder, overlap=False)
    return folder.path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of a run folder of overlapping rounds, and the folder itself, "run"."""
    path = tmp_path_factory.mktemp("overlapping") / "run"
    folder = RunFolder.create(path, config())
    save = folder.save_checkpoint

    def saving(state: ServerState) -> None:
        keep(path, f"rows of {state.round}")
        save(state)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "save_checkpoint", saving)
        run(folder, behind := Behind(path), Recorded(path))
    assert behind.behind == [1, 1, 0]
    return path.parent


def config() -> ExperimentConfig:
    return load_config("cg-digits", SMALL)


def test_nothing_in_a_run_folder_tells_that_rounds_overlapped(whole: Path, killed: Path) -> None:
    same(whole, killed / "run")


@pytest.mark.parametrize("moment", ["rows of 0", "training 2", "rows of 2", "recorded 2"])
def test_a_run_that_is_killed_goes_on_as_if_it_had_not(
    moment: str, whole: Path, killed: Path
) -> None:
    run(RunFolder.reopen(killed / moment))
    same(whole, killed / moment)


@pytest.mark.parametrize("server_round", [0, 1, 2])
def test_a_run_that_goes_back_comes_to_the_same_end(
    server_round: int, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    folder = RunFolder.reopen(path)
    folder.go_back(server_round)
    run(folder)
    same(whole, path)


class Fills(Callback):
    """Fills the disk when the second round has been evaluated, before it is recorded."""

    metrics = (Metric("never", "never measured"),)

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.patched = patched

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if report.round == 2:
            self.patched.setattr("os.fsync", full)


def full(_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("overlap", [False, True])
def test_a_full_disk_is_one_error_and_the_run_goes_on_once_there_is_room(
    overlap: bool, whole: Path, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path / "run", config())
    with pytest.MonkeyPatch.context() as patched:
        with pytest.raises(RunFolderError) as raised:
            run(folder, Fills(patched), overlap=overlap)
        assert str(raised.value).startswith(
            f"cannot write '{folder.checkpoint_file}' (No space left on device): make room there"
        )
        assert raised.value.__context__ is None or raised.value.__suppress_context__
        assert any("model.safetensors" in note for note in raised.value.__notes__)
    run(RunFolder.reopen(folder.path))
    same(whole, folder.path)
