"""Many clients' messages in one call: who trains together, whose replies are whose, what fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict

import client_app.app as client
from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.engine.work import Clients
from bmsfed_app.models import build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.packed import train_together
from client_app.training import run_task
from server_app.experiment import build_strategy, initial_model
from strategies import Orders, ServerState, Task, Update
from strategies.protocol import (
    pack_task,
    select_parts,
    unpack_settings,
    unpack_task,
    unpack_update,
)
from strategies.testing import FakeGrid
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Clients are of the synthetic data; return who trained together, as it happens."""
    seen: list[list[str]] = []

    def spied(
        tasks: Sequence[Task], clients: Sequence[LocalData], settings: ClientSettings
    ) -> list[Update | Exception]:
        seen.append([c.client_id for c in clients])
        return train_together(tasks, clients, settings)

    def data(node_config: Mapping[str, Any], settings: ClientSettings) -> LocalData:
        number = int(node_config["partition-id"])
        if number == 9:
            raise ValueError("its disk is gone")
        return synthetic.client(f"c{number}", 40 + 10 * (number % 3), seed=number)

    FakeGrid({})  # without Flower, messages need what it pretends
    client._say_once.cache_clear()
    monkeypatch.setattr(client, "train_together", spied)
    monkeypatch.setattr(client, "local_data", data)
    return seen


def message(number: int, modalities: tuple[str, ...] = ALL, **changes: Any) -> Message:
    values = {"network": synthetic.spec("mlp"), "packed_clients": 4}
    told = synthetic.settings(**(values | changes))
    kind = "measure" if number == 8 else "train"
    orders = Orders(kind, modalities, 2, f"c{number}")  # type: ignore[arg-type]
    state = build_network(told.network, 0).state_dict()
    arrays = select_parts({n: v.numpy() for n, v in state.items()}, modalities)
    content = pack_task(Task(orders, arrays), told.to_json())
    return Message(content, number + 1, "train" if kind == "train" else "query.measure")


def contexts(messages: Sequence[Message]) -> list[Context]:
    nodes = (m.metadata.dst_node_id - 1 for m in messages)
    return [
        Context(0, 0, {"partition-id": n, "num-partitions": 10}, RecordDict(), {}) for n in nodes
    ]


def answers(messages: Sequence[Message]) -> list[Update | str]:
    """The replies of all, each checked to be its client's."""
    found: list[Update | str] = []
    done = Clients(client.app, 10, together=client.answer_together).answer(messages)
    for asked, reply in zip(messages, (d.reply for d in done), strict=True):
        assert reply.metadata.src_node_id == asked.metadata.dst_node_id
        name = f"c{asked.metadata.dst_node_id - 1}"
        failed = reply.has_error()
        found.append(str(reply.error.reason) if failed else unpack_update(name, reply.content))
    return found


def test_equal_assignments_train_together_and_all_else_one_by_one(
    packs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [message(k) for k in (0, 1, 2, 3, 8, 4)]
    messages[2:2] = [message(5, ("smell",)), message(6, ("smell",)), message(7, ("touch",))]
    together = answers(messages)
    # By size: 40, 40, 50, 50 and then 60 samples, which is left over.
    assert packs == [["c0", "c3", "c1", "c4"], ["c6", "c5"]]
    monkeypatch.setattr(client, "_packable", lambda messages: [])
    for one, other in zip(together, answers(messages), strict=True):
        assert isinstance(one, Update)
        assert isinstance(other, Update)
        assert list(one.arrays) == list(other.arrays)
        for name, values in one.arrays.items():
            np.testing.assert_allclose(values, other.arrays[name], rtol=1e-5, atol=1e-5)


def test_what_fails_for_one_client_fails_for_it_alone(packs: list[list[str]]) -> None:
    spoiled = message(2)
    spoiled.content.config_records["config"]["orders"] = "none"
    found = answers([message(0), message(9), spoiled, message(1), message(4, ("taste",))])
    assert packs == [["c0", "c1"]]
    assert [type(a) for a in found] == [Update, str, str, Update, str]
    assert found[1] == "its disk is gone"
    assert str(found[4]).endswith("client 'c4' was told to train 'taste', it lacks it")


def test_who_has_gaps_trains_alone(packs: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """And answers what it answers to a message of its own, to the last bit."""
    whole, mask = client.local_data, torch.arange(60) % 4 > 0

    def local_data(node: Mapping[str, Any], told: ClientSettings) -> LocalData:
        data = whole(node, told)
        if data.client_id != "c1":
            return data
        return replace(data, split=data.split.lacking({"sound": mask[: len(data)]}))

    monkeypatch.setattr(client, "local_data", local_data)
    messages = [message(k) for k in range(3)]
    _, found, _ = answers(messages)
    assert packs == [["c0", "c2"]]
    [alone] = answers([messages[1]])
    assert isinstance(found, Update)
    assert isinstance(alone, Update)
    assert found.present["sound"] < found.num_samples
    assert all(found.arrays[n].tobytes() == v.tobytes() for n, v in alone.arrays.items())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"packed_clients": 1}, ""),
        (
            {"optimizer": {"name": "adafactor"}, "lr": 1e-3},
            "the optimizer 'adafactor' cannot be packed",
        ),
    ],
)
def test_what_cannot_be_packed_says_so_once_and_is_the_same_to_the_last_bit(
    packs: list[list[str]],
    changes: dict[str, Any],
    fault: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = [message(k, **changes) for k in range(2)]
    monkeypatch.setattr(client.log, "propagate", True)
    with caplog.at_level(logging.WARNING):
        found = [*answers(messages), *answers(messages)]
    assert packs == []
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == bool(fault)
    assert all(line == f"packed_clients: clients train one by one: {fault}" for line in said)
    for update, asked, one in zip(found, messages * 2, contexts(messages * 2), strict=True):
        assert isinstance(update, Update)
        told = ClientSettings.from_json(unpack_settings(asked.content))
        data = client.local_data(one.node_config, told)
        alone = run_task(unpack_task(asked.content), data, told)
        assert all(update.arrays[n].tobytes() == v.tobytes() for n, v in alone.arrays.items())


def test_a_federation_of_packed_clients_goes_as_one_of_single_ones() -> None:
    def run(packed: int) -> ServerState:
        changes = {
            "encoders": {"colored": "mlp", "gray": "mlp"},
            "packed_clients": packed,
            "samples_per_client": 40,
            "rounds": 3,
            "per_round": 4,
        }
        config = load_config("cg-digits", changes)
        return build_strategy(config).run(
            InlineGrid(client.app, 6, together=client.answer_together, pack=4),
            initial_model(config),
            num_rounds=config.rounds,
            settings=config.client_settings().to_json(),
            min_clients=6,
            round_settings=lambda r: {"lr": config.learning_rate(r)},
        )

    packed, single = run(4), run(1)
    assert list(packed.arrays) == list(single.arrays)
    for name, values in packed.arrays.items():
        np.testing.assert_allclose(values, single.arrays[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert any(v.tobytes() != single.arrays[n].tobytes() for n, v in packed.arrays.items())
