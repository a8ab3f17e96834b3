"""Every method on cg-digits, from configuration to run folder, three rounds and resumed; no Ray."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common import client
from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.methods import METHODS
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies.testing import FakeGrid
from tests.run_folders import StopAfter, rows

CLIENTS = 5
SMALL: dict[str, Any] = {
    "clients": CLIENTS,
    "per_round": 2,
    "rounds": 3,
    "data_fraction": 0.1,
    "local_epochs": 2,
    "partition": "dirichlet",
    "alpha": 1.0,
    "min_samples": 4,
    "connect_timeout": 600,
}
#: Which method it is does not depend on what encodes.
CHEAP = {"colored": "mlp", "gray": "mlp"}


@pytest.fixture(autouse=True)
def _threads() -> Any:
    """Clients set the number of threads of their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(folder: RunFolder, last: int = 3, seed: int = 0) -> None:
    grid = FakeGrid({f"node {i}": client(i, CLIENTS) for i in range(CLIENTS)}, seed=seed)
    run_experiment(grid, folder, callbacks=[StopAfter(last)])


@pytest.mark.parametrize("name", [*METHODS.names(), "fedavg-0.2", "fedavg-0.8-fix"])
def test_three_rounds_resumed_after_the_second(name: str, tmp_path: Path) -> None:
    resumed_after_the_second(tmp_path, {"method": name, "encoders": CHEAP})


def test_three_rounds_of_convolutions_with_batch_norm_resumed(tmp_path: Path) -> None:
    resumed_after_the_second(tmp_path, {"method": "bmsfed"})


def resumed_after_the_second(tmp_path: Path, given: dict[str, Any]) -> None:
    config = load_config("cg-digits", SMALL | given)
    whole = RunFolder.create(tmp_path / "whole", config)
    run(whole)
    broken = RunFolder.create(tmp_path / "broken", config)
    run(broken, last=2)
    run(RunFolder.reopen(broken.path, config), seed=1)
    for file in ("history.jsonl", "selection.jsonl"):
        assert rows(broken.path, file) == rows(whole.path, file)
    for file in ("model.safetensors", "checkpoint.safetensors"):
        assert (broken.path / file).read_bytes() == (whole.path / file).read_bytes()
    by_round = [r for r in rows(whole.path) if r["kind"] == "round"]
    assert [r["round"] for r in by_round] == [0, 1, 2, 3]
    assert all(r["failures"] == {} for r in by_round)
    assert set(by_round[-1]["accuracy_by_modality"]) == {"colored", "gray"}
    assert 0 <= by_round[-1]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("fedprx", {}, "did you mean 'fedprox'"),
        ("fedavg-1.5", {}, "drop: .* less than or equal to 1, not 1.5"),
        ("fedprox", {"mu": -1}, "mu: .* greater than or equal to 0, not -1"),
        ("fedproto", {"lamda": 1}, "unknown key 'lamda'.*did you mean 'lam'"),
        ("fedogm", {"until": 2}, "until: .* less than or equal to 1, not 2"),
        ("pow-d", {"d": 1}, "'pow-d': d: 1 candidates for 2 clients per round"),
        ("pow-d", {"d": 9}, "'pow-d': d: 9 candidates of 5 clients"),
    ],
)
def test_what_a_method_cannot_do_is_refused_before_anything_starts(
    method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("cg-digits", SMALL | {"method": method} | settings)
