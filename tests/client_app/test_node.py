"""What a node's own configuration may say, and what is said of what it may not."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.datasets.shard import save_shard
from bmsfed_app.settings import ClientSettings
from client_app import node
from client_app.app import app
from client_app.data import LocalData
from client_app.node import NodeConfigError, on_node
from server_app.experiment import build_strategy, initial_model
from strategies.federation.enrolment import ask_enrolment
from strategies.testing import FakeGrid

SETTINGS = ClientSettings.from_json(load_config("cg-digits").client_settings().to_json())


def test_a_node_bounds_what_the_experiment_asks_for() -> None:
    mine = on_node(SETTINGS, {"device": "cpu", "threads": 3, "max-batch": 16})
    assert (mine.device, mine.threads, mine.batch_size) == ("cpu", 3, 16)
    assert on_node(SETTINGS, {"max-batch": 10**6}).batch_size == SETTINGS.batch_size
    assert on_node(SETTINGS, {"client-id": "a", "data-dir": "d"}) is SETTINGS


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"threads": 0}, "threads is 0: give a whole number of 1 or more"),
        ({"threads": True}, "threads is True: "),
        ({"threads": "2"}, "threads is '2': .* without quotes.*threads=2"),
        ({"max-batch": 2.5}, "max-batch is 2.5: .*max-batch=16"),
        ({"device": "gpu"}, "device is 'gpu': give auto, cpu, cuda"),
        ({"device": "cuda:1"}, "device 'cuda:1', but this machine has 1 GPUs"),
    ],
)
def test_what_is_of_no_use_is_named(
    config: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NodeConfigError, match=says):
        on_node(SETTINGS, config)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NodeConfigError, match="no GPU that torch can use: give device="):
        on_node(SETTINGS, {"device": "cuda"})


def context(config: dict[str, Any]) -> Context:
    return Context(1, 1, config, RecordDict(), {})


def shard(folder: Path) -> tuple[ExperimentConfig, dict[str, Any]]:
    """An experiment, and the node configuration of a device with 8 of its samples."""
    config = load_config("cg-digits", {"color_noise": 0.0217, "method": "fedavg", "batch_size": 6})
    train = config.load_data("train").train
    assert train is not None
    save_shard(train, torch.arange(8), config.dataset_info(), folder)
    return config, {"client-id": "clinic", "data-dir": str(folder)}


def test_the_app_keeps_to_the_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, mine = shard(tmp_path)
    sizes: list[int] = []
    chunks = LocalData.chunks

    def counted(self: LocalData, *args: Any, **kwargs: Any) -> Any:
        found = chunks(self, *args, **kwargs)
        sizes.extend(map(len, found))
        return found

    monkeypatch.setattr(LocalData, "chunks", counted)

    def batches(bounds: dict[str, Any]) -> set[int]:
        sizes.clear()
        build_strategy(config).run(
            FakeGrid({"clinic": lambda m: app(m, context(mine | bounds)).content}),
            initial_model(config),
            num_rounds=1,
            settings=config.client_settings().to_json(),
        )
        return set(sizes)

    assert batches({}) == {6, 2, 8}  # training; all in one pass without gradients
    assert batches({"max-batch": 4, "threads": 1, "device": "cpu"}) == {4}


def test_the_app_says_what_is_wrong_with_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, mine = shard(tmp_path)
    asked = ask_enrolment(config.client_settings().to_json())
    message = Message(asked, dst_node_id=1, message_type="query.enrol")
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    node._warn.cache_clear()
    for _ in range(2):
        app(message, context(mine | {"treads": 2}))
    assert caplog.text.count("nothing reads 'treads'") == 1
    assert "did you mean 'threads'? (known: client-id, data-dir, modalities, device" in caplog.text
    with pytest.raises(ValueError, match="client 'clinic': the node configuration's threads is 0"):
        app(message, context(mine | {"threads": 0}))
