"""Simulated = deployed: three nodes over TLS give what `bmsfed run` gives in one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.faults.federation import Federation, Run
from tests.faults.table import fault
from tests.processes import bmsfed
from tests.run_folders import rows

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.xdist_group("faults-deployed")]

#: The same of both. The partition of the simulated clients is that of the nodes' folders.
SETTINGS = {"local_epochs": 1, "data_fraction": 0.2, "per_round": 2}
NAMES = ["client-0", "client-1", "client-2"]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("deployed")
    pairs = [f"--set={k}={v}" for k, v in SETTINGS.items()]
    arguments = ("data", "split", "cg-digits", "--clients", "3", *pairs)
    bmsfed(*arguments, "--out", str(folder / "shards"))
    with Federation(folder, NAMES, shards=folder / "shards") as federation:
        yield federation


def simulate(method: str, out: Path) -> Path:
    """Run the same by simulated clients in this process."""
    pairs = [f"--set={k}={v}" for k, v in SETTINGS.items()]
    whole = ("run", "cg-digits", "--clients", "3", "--rounds", "3", "--method", method, *pairs)
    bmsfed(*whole, "--engine", "inline", "--out", str(out))
    return out


def deploy(federation: Federation, method: str, resume: str = "") -> Run:
    name = f"{method}-resumed" if resume else method
    settings = {"method": method, "plugins": "[]", "clients": 3, **SETTINGS}
    return federation.run(name, resume=resume, rounds=3, **settings)


@fault(
    "the ServerApp is killed -9 in the midst of a round",
    happens="the run ends; started again with `resume`, it goes on after the last complete round",
    kept="history and model are, to 1e-6, those of the uninterrupted run",
)
def test_a_serverapp_killed_and_resumed_gives_the_numbers_of_a_simulation(
    deployed: Federation, tmp_path: Path
) -> None:
    run = deploy(deployed, "fedavg")
    run.wait_for(lambda rounds: len(rounds) > 1, "the first round")
    deployed.kill_apps("superlink", "flwr-serverapp")
    again = deploy(deployed, "fedavg", resume="fedavg")
    assert again.end()["complete"]
    compare(again.folder, simulate("fedavg", tmp_path / "whole"))


@pytest.mark.long
@pytest.mark.parametrize("method", ["bmsfed", "fedmsplit", "fedpac"])
def test_a_federation_over_tls_gives_the_numbers_of_a_simulation(
    method: str, deployed: Federation, tmp_path: Path
) -> None:
    run = deploy(deployed, method)
    assert run.end()["complete"]
    compare(run.folder, simulate(method, tmp_path / "whole"))


def compare(deployed: Path, simulated: Path) -> None:
    """Hold histories and final models against each other."""
    same(rows(deployed), rows(simulated))
    found = load_file(deployed / "model.safetensors")
    wanted = load_file(simulated / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def same(found: Any, wanted: Any, where: str = "") -> None:
    """Compare what histories hold: numbers to 1e-6, all else exactly; bytes alone may differ."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            if not key.startswith("bytes"):
                same(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            same(one, other, f"{where}[{number}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=1e-6, rel=1e-6), where
    else:
        assert found == wanted, where
