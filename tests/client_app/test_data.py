"""A client's data: read once for all clients and messages of a process."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.config import check_config, load_config
from bmsfed_app.datasets import DataError
from bmsfed_app.datasets.cg_digits import CgDigits
from bmsfed_app.datasets.shard import save_shard
from bmsfed_app.partitions.schemes import Dirichlet
from bmsfed_app.settings import ClientSettings
from client_app import data as client_data
from client_app.data import local_data
from tests.federation import simulated
from tests.own_table import SETTINGS, write_table


def node(number: int) -> dict[str, int]:
    return {"partition-id": number, "num-partitions": 4}


def test_the_split_is_loaded_and_divided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"partition": "dirichlet", "color_noise": 0.0123, "samples_per_client": 30}
    settings = load_config("cg-digits", given).client_settings()
    calls = []

    def counted(owner: type, name: str) -> None:
        work = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return work(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(CgDigits, "load_split")
    counted(Dirichlet, "divide")
    found = [local_data(node(k), settings) for k in (0, 1, 2, 3, 0)]
    assert calls == ["load_split", "divide"]
    assert len({id(data.split) for data in found}) == 1
    assert torch.equal(found[0].index, found[-1].index)
    assert not set(found[0].index.tolist()) & set(found[1].index.tolist())
    later = local_data(node(0), replace(settings, lr=0.5, progress=0.5))  # another round's settings
    assert later.split is found[0].split
    assert calls == ["load_split", "divide"]
    rows = local_data(node(1), load_config("cg-digits", given | {"alpha": 9.0}).client_settings())
    assert calls == ["load_split", "divide", "divide"]
    assert rows.split is found[0].split


def test_settings_are_read_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"data_fraction": 0.1, "rounds": 2, "method": "fedavg", "per_round": 3, "lr": 0.0123}
    read: list[float] = []
    from_json = ClientSettings.from_json

    def counted(values: Mapping[str, Any]) -> ClientSettings:
        read.append(values["lr"])
        return from_json(values)

    monkeypatch.setattr(ClientSettings, "from_json", counted)
    config = load_config("cg-digits", given)
    assert simulated(config, 3).round == 2
    # Three clients say who they are, then train for two rounds.
    assert read[1:] == [config.lr, config.learning_rate(2)]


def test_a_shard_is_read_once(tmp_path: Path) -> None:
    config = load_config("cg-digits")
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, torch.arange(5), config.dataset_info(), tmp_path)
    device = {"client-id": "clinic", "data-dir": str(tmp_path)}
    first, again = (local_data(device, config.client_settings()) for _ in range(2))
    assert again.split is first.split
    assert (len(first), first.client_id) == (5, "clinic")


def test_a_share_of_another_division_is_refused_where_the_server_validates(tmp_path: Path) -> None:
    """It may hold what is validated on; where nothing is, any will do."""

    def held(folder: str, **run: Any) -> int:
        settings = load_config("cg-digits", run).client_settings()
        node = {"client-id": "clinic", "data-dir": str(tmp_path / folder / "client-0")}
        return len(local_data(node, ClientSettings.from_json(settings.to_json())))

    for folder, given in (("kept", ["--set", "validation=0.1", "--set", "seed=3"]), ("all", [])):
        asked = ["data", "split", "cg-digits", "--clients", "3", "--out", str(tmp_path / folder)]
        done = CliRunner().invoke(cli, asked + given, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert held("kept", validation=0.1, seed=3) == held("kept") == 431
    assert held("all", seed=4) == 479
    for folder, of, run in (
        ("kept", "seed 3 and validation 0.1", (4, 0.1)),
        ("kept", "seed 3 and validation 0.1", (3, 0.2)),
        ("all", "seed 0 and validation 0.0", (0, 0.1)),
    ):
        seed, validation = run
        said = (
            f"client-0/train.safetensors was split with {of}, the run has seed {seed} and "
            f"validation {validation}, so .* with --set seed={seed} --set validation={validation}, "
            f"or run with seed={of[5]} and validation="
        )
        with pytest.raises(DataError, match=said):
            held(folder, seed=seed, validation=validation)

    config = load_config("cg-digits")
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, torch.arange(5), config.dataset_info(), tmp_path / "old/client-0")
    assert held("old") == 5  # as of an earlier version
    said = "does not say by which seed and validation it was split, the run has seed 1 and val.* by"
    with pytest.raises(DataError, match=said):
        held("old", seed=1, validation=0.1)


def test_a_machine_may_keep_its_data_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster whose machines were given a copy, which was prepared there."""

    def prepared(folder: Path) -> ClientSettings:
        keys = {"dataset": "table", "dataset_settings": SETTINGS, "data_dir": str(folder)}
        config = check_config(keys | {"partition": "natural", "clients": 2})
        return replace(config.client_settings(), data=config.check_data().fingerprint)

    settings = prepared(write_table(tmp_path / "there", ["ann", "bob"]))
    shutil.copytree(tmp_path / "there", tmp_path / "here", copy_function=shutil.copy)
    assert prepared(tmp_path / "here").data == settings.data
    first = {"partition-id": 0, "num-partitions": 2}
    monkeypatch.setenv("BMSFED_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        local_data(first, settings)
    client_data._simulated.cache_clear()
    monkeypatch.setenv("BMSFED_DATA_DIR", str(tmp_path / "here"))
    assert len(local_data(first, settings)) == 6
