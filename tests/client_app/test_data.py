"""A client's data: read once for all clients and messages of a process."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bmsfed_app.config import load_config
from bmsfed_app.datasets.cg_digits import CgDigits
from bmsfed_app.datasets.shard import save_shard
from bmsfed_app.partitions.schemes import Dirichlet
from bmsfed_app.settings import ClientSettings
from client_app.data import local_data
from tests.federation import simulated


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


def test_settings_are_read_and_plug_ins_compared_once_a_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"data_fraction": 0.1, "rounds": 2, "method": "fedavg", "per_round": 3, "lr": 0.0123}
    read: list[float] = []
    compared: list[Any] = []
    from_json = ClientSettings.from_json

    def counted(values: Mapping[str, Any]) -> ClientSettings:
        read.append(values["lr"])
        return from_json(values)

    monkeypatch.setattr(ClientSettings, "from_json", counted)
    monkeypatch.setattr("client_app.app.check_plug_ins", compared.append)
    config = load_config("cg-digits", given)
    assert simulated(config, 3).round == 2
    # Three clients say who they are, then train for two rounds.
    assert read[1:] == [config.lr, config.learning_rate(2)]
    assert compared == [[], [], []]


def test_a_shard_is_read_once(tmp_path: Path) -> None:
    config = load_config("cg-digits")
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, torch.arange(5), config.dataset_info(), tmp_path)
    device = {"client-id": "clinic", "data-dir": str(tmp_path)}
    first, again = (local_data(device, config.client_settings()) for _ in range(2))
    assert again.split is first.split
    assert (len(first), first.client_id) == (5, "clinic")
