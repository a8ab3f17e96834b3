"""The same FedAvg work by two other simulators; each runs in an environment of its own.

The same network, client sizes, mini-batches and optimiser, one process on one core. Pictures are
rendered beforehand, nothing is evaluated (pfl does so around its first round, which is left out).
Of batch norms, pfl averages weights and leaves running means as the last client had them.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engines.rows import Row
from bmsfed_app.config import ExperimentConfig
from bmsfed_app.models import MultiModalNetwork
from client_app.data import local_data

#: Channels of the colored picture, which comes before the gray one.
_COLORED = 3


class _Joined(nn.Module):
    """Our network with both pictures as the channels of one, as others want their inputs."""

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__()
        self.network = MultiModalNetwork(config.network_spec())

    def forward(self, x: Tensor) -> Tensor:
        inputs = {"colored": x[:, :_COLORED], "gray": x[:, _COLORED:]}
        logits: Tensor = self.network(inputs).logits
        return logits

    # What pfl asks of a model.

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.train()
        return F.cross_entropy(self(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {}


def _clients(row: Row, config: ExperimentConfig) -> list[tuple[Tensor, Tensor]]:
    """Every client's pictures, both joined, and labels."""
    settings, found = config.client_settings(), []
    for number in range(row.clients):
        data = local_data({"partition-id": number, "num-partitions": row.clients}, settings)
        [(inputs, labels)] = data.batches(len(data), ("colored", "gray"))
        found.append((torch.cat([inputs["colored"], inputs["gray"]], 1), labels))
    return found


def pfl(row: Row) -> list[float]:
    """Return when every round was done by pfl-research's FederatedAveraging."""
    import numpy as np
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, *arguments: Any, **named: Any) -> tuple[bool, Metrics]:
            ends.append(time.time())
            return False, Metrics()

    torch.set_num_threads(1)
    config, ends = row.config(), list[float]()
    clients = [Dataset(data) for data in _clients(row, config)]
    rng = np.random.default_rng(0)
    data = FederatedDataset(clients.__getitem__, lambda: int(rng.integers(row.clients)))
    network = _Joined(config)
    model = PyTorchModel(
        network,
        lambda parameters, lr: _optimizer(parameters, config, lr),
        torch.optim.SGD(network.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=row.rounds,
            evaluation_frequency=1_000_000,
            train_cohort_size=row.per_round,
            val_cohort_size=0,
        ),
        SimulatedBackend(data, data, [WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_num_epochs=row.local_epochs,
            local_learning_rate=config.lr,
            local_batch_size=row.batch_size,
        ),
        NNEvalHyperParams(local_batch_size=row.batch_size),
        [Clock()],
    )
    return ends


def _optimizer(parameters: Any, config: ExperimentConfig, lr: float) -> torch.optim.Optimizer:
    decay = config.weight_decay
    return torch.optim.SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=decay)


def fluke(row: Row) -> list[float]:
    """Return when every round was done by fluke's FedAVG."""
    from fluke import DDict, FlukeENV
    from fluke.algorithms.fedavg import FedAVG
    from fluke.data import DataSplitter, DummyDataContainer, FastDataLoader
    from fluke.utils import FederationObserver

    class Clock(FederationObserver):
        def end_round(self, round: int) -> None:
            ends.append(time.time())

    torch.set_num_threads(1)
    config, ends = row.config(), list[float]()
    FlukeENV().set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)
    loaders = [
        FastDataLoader(x, y, num_labels=10, batch_size=row.batch_size, shuffle=True)
        for x, y in _clients(row, config)
    ]
    container = DummyDataContainer(loaders, [None] * row.clients, None, 10)
    client = {
        "batch_size": row.batch_size,
        "local_epochs": row.local_epochs,
        "loss": "CrossEntropyLoss",
        "persistency": False,  # as ours, clients keep nothing
        "optimizer": {
            "name": "SGD",
            "lr": config.lr,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
        },
        "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1},
    }
    told = {"client": client, "server": {"weighted": True, "lr": 1.0}, "model": _Joined(config)}
    splitter = DataSplitter(container, distribution="iid")
    algorithm = FedAVG(row.clients, splitter, DDict(told))
    algorithm.set_callbacks([Clock()])
    algorithm.run(row.rounds, (row.per_round + 0.5) / row.clients)  # rounded down
    return ends
