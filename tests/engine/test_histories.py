"""An experiment has one history, on whatever engine, with however many workers, resumed or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bmsfed_app.config import ExperimentConfig, check_config, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.engine.base import SimulationGrid
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from tests.own_table import SETTINGS, write_table
from tests.run_folders import StopAfter, rows

pytestmark = pytest.mark.xdist_group("ray")

CLIENTS, ROUNDS = 4, 3
SMALL: dict[str, Any] = {
    "clients": CLIENTS,
    "per_round": 3,
    "rounds": ROUNDS,
    "local_epochs": 1,
    "connect_timeout": 600,
}
#: FedPAC keeps a head per client; clients of three modalities may lack two of them.
CASES: dict[int, dict[str, Any]] = {
    2: {
        "data_fraction": 0.1,
        "partition": "dirichlet",
        "min_samples": 4,
        "encoders": {"colored": "mlp", "gray": "mlp"},
    },
    3: {"method": "fedpac", "whole_share": 0.5, "partition": "natural"},
}
THREE = {"face": ["f0", "f1"], "eyes": ["f2"], "voice": ["v0", "v1"]}


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """Clients set the number of threads of their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=sorted(CASES))
def experiment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ExperimentConfig:
    """An experiment of so many modalities."""
    given = SMALL | CASES[request.param]
    if request.param == 2:
        return load_config("cg-digits", given)
    data = write_table(tmp_path_factory.mktemp("data"), ["a", "b", "c", "d"], each=12)
    modalities = {m: {"type": "numbers", "columns": columns} for m, columns in THREE.items()}
    settings = SETTINGS | {"modalities": modalities}
    given |= {"data_dir": str(data), "dataset_settings": settings}
    return check_config({"dataset": "table", **given})


@pytest.fixture(scope="module")
def whole(experiment: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its run with the clients in this process, never stopped."""
    folder = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", experiment)
    with InlineGrid(app, CLIENTS) as grid:
        run_experiment(grid, folder)
    return folder.path


@pytest.fixture(scope="module", params=[1, 2])
def workers(request: pytest.FixtureRequest, ray_cluster: None) -> Iterator[SimulationGrid]:
    """So many processes, for all experiments one after the other."""
    from bmsfed_app.engine import RayGrid

    with RayGrid(app, CLIENTS, workers=request.param) as grid:
        assert grid.workers == request.param
        yield grid


def same(run: Path, other: Path) -> None:
    """Histories, picks, and all that a server remembers agree to the last bit."""
    for file in ("history.jsonl", "selection.jsonl"):
        assert rows(run, file) == rows(other, file)
    for file in ("model.safetensors", "checkpoint.safetensors"):
        assert (run / file).read_bytes() == (other / file).read_bytes()


def test_processes_give_the_history_of_clients_in_this_one(
    workers: SimulationGrid, experiment: ExperimentConfig, whole: Path, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path / "run", experiment)
    run_experiment(workers, folder)
    by_round = [r for r in rows(folder.path) if r["kind"] == "round"]
    assert [r["round"] for r in by_round] == list(range(ROUNDS + 1))
    assert not any(r["failures"] for r in by_round)
    assert len(by_round[-1]["accuracy_by_modality"]) == len(experiment.dataset_info().modalities)
    same(folder.path, whole)


@pytest.mark.parametrize("begun", ["inline", "ray"])
def test_a_run_is_resumed_on_another_engine(
    begun: str, workers: SimulationGrid, experiment: ExperimentConfig, whole: Path, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path / "run", experiment)
    engines: list[SimulationGrid] = [InlineGrid(app, CLIENTS), workers]
    first, second = engines if begun == "inline" else reversed(engines)
    run_experiment(first, folder, callbacks=[StopAfter(2)])
    assert rows(folder.path)[-1]["round"] == 2
    run_experiment(second, RunFolder.reopen(folder.path, experiment))
    same(folder.path, whole)
