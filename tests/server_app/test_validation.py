"""What `validation` keeps back: no client has it, and the server measures on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bmsfed_app.config import load_config
from bmsfed_app.datasets import DataError
from bmsfed_app.datasets.colored import PALETTE
from bmsfed_app.engine import InlineGrid
from bmsfed_app.partitions import experiment_shares, read_partition, validation_rows
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from tests.synthetic import split


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "pathological"])
def test_no_client_has_them_and_every_class_gives_its_share(scheme: str) -> None:
    data = split(90)
    partition = read_partition({"partition": scheme, "clients": 3, "validation": 0.2})
    kept = validation_rows(data.labels.numpy(), partition, seed=3)
    shares = experiment_shares(data, partition, 3, seed=3)
    given = np.concatenate([s.rows for s in shares])
    assert np.bincount(data.labels[kept]).tolist() == [6, 6, 6]
    assert sorted([*kept, *given]) == list(range(90))


def test_data_fraction_is_of_what_is_left() -> None:
    data = split(90)
    partition = read_partition({"clients": 3, "validation": 0.2, "data_fraction": 0.5})
    kept = validation_rows(data.labels.numpy(), partition, seed=3)
    given = np.concatenate([s.rows for s in experiment_shares(data, partition, 3, seed=3)])
    assert (len(kept), len(given)) == (18, 36)
    assert not set(kept) & set(given)


def test_the_last_sample_of_a_class_stays() -> None:
    partition = read_partition({"validation": 0.9})
    assert validation_rows(np.array([0, 0, 0, 1]), partition, seed=0).size == 2


def test_colours_of_validation_tell_no_class_as_in_testing() -> None:
    config = load_config("cg-digits", {"validation": 0.5, "dataset_settings": {"color_noise": 0.0}})
    kept = config.load_validation()
    means = torch.tensor(PALETTE).float() / 255
    colour = torch.cdist(kept.stores["colors"], means).argmin(dim=1)
    own = (colour == kept.labels).float().mean()
    assert 0.05 < own < 0.2, "one in ten by chance"
    train = config.load_data("train").train
    assert train is not None
    rows = validation_rows(train.labels.numpy(), config.division(), config.seed)
    torch.testing.assert_close(kept.stores["digits"], train.stores["digits"][rows])


def test_too_small_a_share_is_refused() -> None:
    with pytest.raises(DataError, match="less than one of any class: raise it"):
        load_config("cg-digits", {"validation": 1e-4}).load_validation()


def test_its_accuracy_is_in_the_history(tmp_path: Path) -> None:
    small: dict[str, Any] = {"clients": 3, "per_round": 2, "rounds": 2, "data_fraction": 0.1}
    config = load_config("cg-digits", small | {"method": "fedavg", "validation": 0.2})
    folder = RunFolder.create(tmp_path / "run", config)
    run_experiment(InlineGrid(app, 3), folder)
    found = read_run(folder.path)
    assert [n for n, _ in found.values("validation_accuracy")] == [1, 2]
    assert found.values("validation_head_accuracy", "gray")[-1][0] == 2
