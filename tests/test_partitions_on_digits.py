"""Partitions reach the clients: what each has, holds and is called; whole federations of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.datasets import load_dataset
from bmsfed_app.engine import InlineGrid
from bmsfed_app.partitions import experiment_shares
from client_app.app import app
from client_app.data import local_data
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from tests.run_folders import rows

CLIENTS = 8
SMALL: dict[str, Any] = {
    "clients": CLIENTS,
    "per_round": 4,
    "rounds": 2,
    "local_epochs": 1,
    "samples_per_client": 24,
    "whole_share": 0.5,
    "connect_timeout": 600,
    "device": "cpu",
}
BOTH = ("colored", "gray")


@pytest.fixture(autouse=True)
def _threads() -> Any:
    """Clients set the number of threads of their process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def node(number: int, **more: str) -> dict[str, Any]:
    return {"partition-id": number, "num-partitions": CLIENTS, **more}


def test_clients_have_their_shares() -> None:
    config = load_config("cg-digits", SMALL | {"partition": "dirichlet", "seed": 5})
    train = load_dataset("cg-digits", None, seed=5).train
    assert train is not None
    shares = experiment_shares(train, config.division(), CLIENTS, seed=5)
    assert len({s.modalities for s in shares}) == 3
    for number, share in enumerate(shares):
        data = local_data(node(number), config.client_settings())
        assert (data.client_id, data.modalities) == (share.name, share.modalities)
        assert data.index.tolist() == share.rows.tolist()


def test_a_node_may_hold_less_than_its_share_and_name_itself() -> None:
    settings = load_config("cg-digits", SMALL | {"whole_share": 1.0}).client_settings()
    data = local_data(node(0, modalities="gray", **{"client-id": "clinic"}), settings)
    assert (data.client_id, data.modalities) == ("clinic", ("gray",))


def federate(config: ExperimentConfig, path: Path) -> dict[str, Any]:
    """Run a federation and return its clients, by name."""
    folder = RunFolder.create(path, config)
    state = run_experiment(InlineGrid(app, config.clients), folder)
    rounds = [r for r in rows(folder.path) if r["kind"] == "round"]
    assert [r["round"] for r in rounds] == [0, 1, 2]
    assert all(r["failures"] == {} for r in rounds)
    for row in rounds[1:]:
        assert row["assignments"]
        for name, trained in row["assignments"].items():
            assert set(trained) <= set(state.clients[name].modalities)
    assert all(np.isfinite(v).all() for v in state.arrays.values())
    return dict(state.clients)


@pytest.mark.parametrize("method", ["bmsfed", "fedavg"])
def test_a_federation_of_incongruent_clients(method: str, tmp_path: Path) -> None:
    clients = federate(load_config("cg-digits", SMALL | {"method": method}), tmp_path / "run")
    held = [c.modalities for c in clients.values()]
    assert {h: held.count(h) for h in held} == {BOTH: 4, ("colored",): 2, ("gray",): 2}
    assert {c.num_samples for c in clients.values()} == {24}


def test_a_federation_of_listed_sites(tmp_path: Path) -> None:
    sites = {"north": ("gray", range(0, 1400, 40)), "south": ("colored+gray", range(1, 1400, 50))}
    lines = [f"{n},{row},{held}\n" for n, (held, own) in sites.items() for row in own]
    (tmp_path / "sites.csv").write_text("client,sample,modalities\n" + "".join(lines))
    given = {"partition": "file", "partition_file": str(tmp_path / "sites.csv"), "clients": 2}
    given |= {"per_round": 2, "whole_share": 1.0, "samples_per_client": 0, "method": "fedavg"}
    clients = federate(load_config("cg-digits", SMALL | given), tmp_path / "run")
    assert {n: (c.modalities, c.num_samples) for n, c in clients.items()} == {
        "north": (("gray",), 35),
        "south": (BOTH, 28),
    }
