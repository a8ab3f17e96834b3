"""Flower's SecAgg+ around a classic strategy of ours: the server sees masked vectors and a sum."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import NDArrays, Scalar, ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

from bmsfed_app.engine import InlineGrid
from strategies import classic

NAMES = ("encoders.a.w", "head.bias")
SAMPLES = (10, 20, 30, 40)


class Trained(NumPyClient):
    """Client k moves every number by k + 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fit(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[NDArrays, int, dict[str, Scalar]]:
        assert json.loads(str(config.get("names", json.dumps(NAMES)))) == list(NAMES)
        return [p + self.number + 1 for p in parameters], SAMPLES[self.number], {}


def client_fn(context: Context) -> Client:
    return Trained(int(context.node_config["partition-id"])).to_client()


class Overheard(InlineGrid):
    """Keeps what the server gets to see."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[RecordDict] = []

    def accept(self, message: Message) -> None:
        """Give each node content of its own, which Flower's mod empties."""
        message.content = copy.deepcopy(message.content)
        super().accept(message)

    def pull_messages(self, message_ids: Any) -> list[Message]:
        replies = list(super().pull_messages(message_ids))
        self.seen += [r.content for r in replies if not r.has_error()]
        return replies

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        waiting, replies = set(self.push_messages(messages)), []
        while waiting:
            came = self.pull_messages(list(waiting))
            waiting -= {r.metadata.reply_to_message_id for r in came}
            replies += came
        return replies


def test_fedavg_gets_the_average_and_no_clients_update() -> None:
    start = [np.zeros(5, np.float32), np.ones(2, np.float32)]
    strategy = classic.FedAvg(
        NAMES,
        clients_per_round=4,
        initial_parameters=ndarrays_to_parameters(start),
        min_available_clients=4,
        fraction_evaluate=0.0,
    )
    grid = Overheard(ClientApp(client_fn=client_fn, mods=[secaggplus_mod]), 4)
    context = LegacyContext(
        context=Context(1, 1, {}, RecordDict(), {}),
        config=ServerConfig(num_rounds=2),
        strategy=strategy,
    )
    DefaultWorkflow(fit_workflow=SecAggPlusWorkflow(4, 3))(grid, context)
    mean = sum((k + 1) * n for k, n in enumerate(SAMPLES)) / sum(SAMPLES)
    model = [context.state.array_records["parameters"][n].numpy() for n in ("0", "1")]
    np.testing.assert_allclose(model[0], 2 * mean, atol=1e-2)
    np.testing.assert_allclose(model[1], 1 + 2 * mean, atol=1e-2)
    assert not any(a.size for c in grid.seen for r in c.array_records.values() for a in r.values())
