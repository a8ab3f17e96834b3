"""The clients that the data or a file itself has: all of them, unless fewer are asked for."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmsfed_app.cli.main import main
from bmsfed_app.cli.simulate import check_experiment
from bmsfed_app.config import ConfigError, ExperimentConfig, load_config
from bmsfed_app.partitions import PartitionError, read_partition, share_out, subsample
from client_app.data import local_data
from tests.own_table import SETTINGS, write_table

ACTORS = [f"actor-{n:02d}" for n in range(18)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))


def experiment(folder: Path, actors: list[str], **more: Any) -> Path:
    """An experiment's file, as README has it: natural clients, and not how many there are."""
    values = {"dataset": "table", "data_dir": str(write_table(folder, actors))}
    values |= {"dataset_settings": SETTINGS, "partition": "natural", "method": "fedavg", **more}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def loaded(folder: Path, actors: list[str], **more: Any) -> ExperimentConfig:
    config = load_config(str(experiment(folder, actors, **more)))
    config.check_data()
    return config


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bmsfed", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_every_natural_client_takes_part(tmp_path: Path) -> None:
    config, _ = check_experiment(loaded(tmp_path, ACTORS))
    assert config.clients == 18
    settings = config.client_settings()
    nodes = [{"partition-id": n, "num-partitions": 18} for n in range(18)]
    assert [local_data(node, settings).client_id for node in nodes] == ACTORS


def test_fewer_are_groups_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = check_experiment(loaded(tmp_path, ACTORS, clients=10))
    assert config.clients == 10
    assert "18 natural clients in 10 groups" in capsys.readouterr().out
    with pytest.raises(PartitionError, match="20 clients of 18 natural ones: have at most 18"):
        check_experiment(config.model_copy(update={"clients": 20}))


def test_flowers_own_number_of_nodes_merges_nobody(tmp_path: Path) -> None:
    config = loaded(tmp_path, ACTORS)
    check_experiment(config)  # prepares the data
    with pytest.raises(PartitionError, match=r"18 natural clients, .* 10: .*num-supernodes=18"):
        local_data({"partition-id": 0, "num-partitions": 10}, config.client_settings())
    drawn = loaded(tmp_path, ACTORS, partition="iid", clients=4)
    check_experiment(drawn)
    with pytest.raises(PartitionError, match=r"clients: 4, this federation 10: .*supernodes=4"):
        local_data({"partition-id": 0, "num-partitions": 10}, drawn.client_settings())


def test_the_number_of_the_data_must_fit_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="per_round: 19 clients a round of 18 in all"):
        check_experiment(loaded(tmp_path, ACTORS, per_round=19))


def test_as_many_as_the_file_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = tmp_path / "sites.csv"
    sites.write_text("client,sample\nnorth,s0\nsouth,s7\nnorth,s2\nwest,s9\n")
    more = {"partition": "file", "partition_file": str(sites)}
    assert check_experiment(loaded(tmp_path, ACTORS, **more))[0].clients == 3
    assert "104 of 108 training samples are no client's\n" in capsys.readouterr().out
    sites.write_text("client,sample\nnorth,s0\nsouth,s2\nwest,s4\n")
    check_experiment(loaded(tmp_path, ACTORS, **more))
    assert "no client has a sample of class 'tense'\n" in capsys.readouterr().out
    with pytest.raises(PartitionError, match=r"sites\.csv lists 3 clients, the federation has 4"):
        check_experiment(loaded(tmp_path, ACTORS, clients=4, **more))


def test_any_number_will_do_for_the_others(tmp_path: Path) -> None:
    assert check_experiment(loaded(tmp_path, ACTORS, partition="iid"))[0].clients == 10


@pytest.mark.parametrize(("options", "folders"), [((), 18), (("--clients", "5"), 5)])
def test_data_split_and_show_take_all(
    options: tuple[str, ...],
    folders: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = experiment(tmp_path, ACTORS), tmp_path / "shards"
    assert call(monkeypatch, "data", "split", str(file), *options, "--out", str(out)) == 0
    assert len(list(out.iterdir())) == folders
    assert call(monkeypatch, "data", "show", str(file), *options, "--out", str(tmp_path)) == 0
    said = re.findall(r"18 natural clients in \d+ groups", capsys.readouterr().out)
    assert said == (["18 natural clients in 5 groups"] * 2 if options else [])


# --- what is refused ----------------------------------------------------------------------------


def test_samples_without_a_client_are_named(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"6 of 24 training samples name no client \(s6, s7"):
        check_experiment(loaded(tmp_path / "some", ["ann", "", "bob", "eve"]))
    with pytest.raises(PartitionError, match="this data set does not: choose another partition"):
        check_experiment(loaded(tmp_path / "all", [""]))
    unnamed = loaded(tmp_path / "iid", ["ann", ""], partition="iid", clients=2)
    assert check_experiment(unnamed)[0] == unnamed


def test_a_client_that_is_left_nothing_is_named() -> None:
    owners = np.repeat(["ann", "bob", "eve"], [30, 1, 30])
    wanted = read_partition({"partition": "natural", "data_fraction": 0.1})
    assert 30 not in subsample(np.zeros(61, int), 0.1, 0)  # bob's
    with pytest.raises(PartitionError, match=r"'bob' would have no sample .*data_fraction 0\.1"):
        share_out(np.zeros(61, int), ("a",), wanted, 3, seed=0, owners=owners)
