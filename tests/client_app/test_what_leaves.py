"""What leaves a client: no prototype of a small class, and no path of its machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

import client_app.app as client
from bmsfed_app.config import check_config, load_config
from bmsfed_app.datasets import DataError
from client_app.data import LocalData, local_data
from client_app.features import extract_features, local_prototypes
from client_app.redaction import ClientError, redacting, without_paths
from client_app.training import received_network, run_task
from strategies import Orders, Task
from strategies.protocol import pack_task
from strategies.testing import FakeGrid
from tests import synthetic
from tests.client_app.test_fednh import SPEC as COSINE
from tests.client_app.test_training import model
from tests.federation import initial

ALL = tuple(synthetic.WIDTHS)


def with_one_of_class_2(least: int) -> LocalData:
    """20 samples each of classes 0 and 1, a single one of class 2."""
    data = synthetic.client(n=60)
    keep = torch.tensor([*range(60)])
    keep = torch.cat([keep[data.labels != 2], keep[data.labels == 2][:1]])
    return replace(data, index=keep, min_class_count=least)


def answered(data: LocalData, **changes: Any) -> Any:
    settings = synthetic.settings(network=synthetic.spec("mlp"), **changes)
    orders = Orders("train", ALL, round=1, measure_prototypes=True)
    return run_task(Task(orders, model()), data, settings)


def test_a_class_with_one_sample_sends_neither_its_feature_nor_its_count() -> None:
    bare, kept = answered(with_one_of_class_2(1)), answered(with_one_of_class_2(2))
    for m in ALL:
        assert bare.prototypes[m].counts.tolist() == [20, 20, 1]
        assert kept.prototypes[m].counts.tolist() == [20, 20, 0]
        assert np.any(bare.prototypes[m].means[2] != 0), "this is that one sample's feature"
        assert not kept.prototypes[m].means[2].any()
        np.testing.assert_array_equal(kept.prototypes[m].means[:2], bare.prototypes[m].means[:2])
    assert kept.scores == bare.scores, "sums over all samples, which are of all classes"
    assert kept.ratios == bare.ratios


def test_at_enrolment_a_small_class_counts_nothing() -> None:
    assert with_one_of_class_2(1).info().class_counts == (20, 20, 1)
    info = with_one_of_class_2(2).info()
    assert (info.class_counts, info.num_samples) == ((20, 20, 0), 41)


def test_fednh_sends_no_direction_of_a_small_class() -> None:
    def sent(least: int) -> Any:
        settings = synthetic.settings(network=COSINE, objective="frozen_head")
        task = Task(Orders("train", ALL, round=1), initial(COSINE))
        return run_task(task, with_one_of_class_2(least), settings).measurements

    bare, kept = sent(1), sent(2)
    assert bare["counts"].tolist() == [20, 20, 1]
    assert kept["counts"].tolist() == [20, 20, 0]
    for m in ALL:
        assert bare[f"directions.{m}"][2].any()
        assert not kept[f"directions.{m}"][2].any()
        np.testing.assert_array_equal(kept[f"directions.{m}"][:2], bare[f"directions.{m}"][:2])


def test_fedpac_sends_no_share_of_a_small_class() -> None:
    own = {"objective": "feature_alignment", "objective_settings": {"lam": 1.0, "head_lr": 0.1}}
    bare = answered(with_one_of_class_2(1), **own).measurements
    kept = answered(with_one_of_class_2(2), **own).measurements
    for m in ALL:
        assert bare[f"shares.{m}"][2].any()
        assert not kept[f"shares.{m}"][2].any()
        np.testing.assert_array_equal(kept[f"shares.{m}"][:2], bare[f"shares.{m}"][:2])


def test_the_prototype_of_one_sample_is_its_feature() -> None:
    """What is withheld, and why."""
    data = with_one_of_class_2(1)
    settings = synthetic.settings(network=synthetic.spec("mlp"))
    network = received_network(Task(Orders("train", ALL), model()), data, settings)
    features = extract_features(network, data)
    means = local_prototypes(features, data.labels, data.num_classes)
    for m in ALL:
        assert torch.equal(means[m].means[2], features[m][-1])
        assert not means[m].withheld(2).means[2].any()


def test_the_experiment_says_how_many_samples_and_a_node_may_ask_for_more() -> None:
    config = load_config("cg-digits", {"min_class_count": 3})
    settings = config.client_settings()
    node = {"partition-id": 0, "num-partitions": 4}
    assert local_data(node, settings).min_class_count == 3
    assert local_data(node | {"min-class-count": 2}, settings).min_class_count == 3
    assert local_data(node | {"min-class-count": 5}, settings).min_class_count == 5
    with pytest.raises(DataError, match="min-class-count='few': a whole number of 1 or more"):
        local_data(node | {"min-class-count": "few"}, settings)
    with pytest.raises(ValueError, match="min_class_count"):
        check_config({"dataset": "cg-digits", "min_class_count": 0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no train.csv in /home/ann/data: mend it", "no train.csv in data: mend it"),
        ("[Errno 2] No such file: '/srv/my files/x 1.npy'", "[Errno 2] No such file: 'x 1.npy'"),
        (r"cannot read C:\Users\ann\scan.png (broken)", "cannot read scan.png (broken)"),
        ('File "/opt/venv/lib/torch/x.py", line 3', 'File "x.py", line 3'),
        ("either and/or, 3/4, https://host.org/a/b", "either and/or, 3/4, https://host.org/a/b"),
        ("see ~/notes/a.txt.", "see a.txt."),
        ("folder=/data/a/, (/b/c.csv): x", "folder=a, (c.csv): x"),
        ("in shards/client-0/train.x", "in train.x"),
        ("no file in shards/client-0: mend", "no file in client-0: mend"),
    ],
)
def test_file_names_stand_for_paths(text: str, says: str) -> None:
    assert without_paths(text, "shards/client-0") == says


def context(**node_config: Any) -> Context:
    return Context(1, 1, node_config, RecordDict(), {})


def enrol(config: dict[str, Any] | None = None) -> Message:
    FakeGrid({})  # without Flower, messages need what it pretends
    settings = (config and check_config(config)) or load_config("cg-digits")
    task = Task(Orders("train", ("gray",)))
    return Message(pack_task(task, settings.client_settings().to_json()), 1, "query.enrol")


def test_what_a_client_raises_names_files_but_no_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "secret place"
    asked = {"client-id": "ann", "data-dir": str(folder)}
    with caplog.at_level(logging.ERROR, "flwr"), pytest.raises(ClientError) as raised:
        client.app(enrol(), context(**asked))
    assert str(raised.value).startswith("no train.safetensors in secret place: write the folder")
    assert str(tmp_path) not in str(raised.value)
    assert f"in {folder}: write" in caplog.text, "the client's own log has it whole"


def failing(error: Exception) -> Callable[[Message, Context], Message]:
    def call(message: Message, context: Context) -> Message:
        raise error

    return call


def test_an_error_without_a_path_stays_as_it_is() -> None:
    error = ValueError("the loss became NaN")
    with pytest.raises(ValueError, match="became NaN") as raised:
        redacting(enrol(), context(), failing(error))
    assert raised.value is error


def test_of_an_operating_systems_error_the_kind_is_kept() -> None:
    error = FileNotFoundError(2, "No such file or directory", "/home/ann/x.npy")
    says = r"^FileNotFoundError: \[Errno 2\] No such file or directory: 'x\.npy'$"
    with pytest.raises(ClientError, match=says):
        redacting(enrol(), context(), failing(error))


def test_a_server_may_not_have_any_module_imported() -> None:
    """By its name alone: the import of a module runs it."""
    message = enrol({"dataset": "cg-digits", "plugins": ["tests.made_module"]})
    node = {"client-id": "ann", "data-dir": "nowhere"}
    with pytest.raises(ValueError, match=r"the import of module 'tests\.made_module'"):
        client.app(message, context(**node))
    with pytest.raises(DataError, match=r"no train\.safetensors in nowhere"):
        client.app(message, context(**node, plugins="other, tests.made_module"))
