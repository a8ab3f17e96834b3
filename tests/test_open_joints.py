"""What others bring, in whole federations of three modalities: optimisers, heads, objectives."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bmsfed_app.methods import METHODS
from bmsfed_app.models import HEADS, FusionHead, MultiModalNetwork, build_network
from client_app.training import run_task
from strategies import FedAvg, Orders, Task
from strategies.protocol import select_parts
from tests import synthetic
from tests.plugins import only_here
from tests.test_methods import clients_of, federate, model
from tests.test_three_modalities import HELD

ADAM = {"optimizer": {"name": "adam", "betas": [0.8, 0.9]}}


class Weighted(FusionHead):
    """Contributions weighted by a softmax over the modalities that are there; shared ``query``."""

    def __init__(self, widths, num_classes):
        super().__init__(widths, num_classes)
        self.query = nn.Parameter(torch.ones(num_classes))

    def parts(self, features):
        parts = super().parts(features)
        scores = torch.stack([p @ self.query for p in parts.values()], dim=1).softmax(dim=1)
        return {m: scores[:, [i]] * p for i, (m, p) in enumerate(parts.items())}


def test_a_round_of_adam_is_torchs_adam_from_nothing() -> None:
    modalities, data = ("touch", "smell"), synthetic.client(n=20)
    settings = synthetic.settings(network=synthetic.spec("mlp"), local_epochs=3, **ADAM)
    network = MultiModalNetwork(synthetic.spec("mlp"), modalities)
    network.head.reset(torch.Generator().manual_seed(0))
    arrays = {n: v.numpy().copy() for n, v in network.state_dict().items()}
    task = Task(Orders("train", modalities), arrays)
    found = [run_task(task, data, settings).arrays for _ in range(2)]
    oracle = torch.optim.Adam(
        network.parameters(), lr=settings.lr, betas=(0.8, 0.9), weight_decay=settings.weight_decay
    )
    inputs, labels = next(data.batches(20, modalities))
    for _ in range(3):  # one batch of all samples, whatever their order
        oracle.zero_grad()
        F.cross_entropy(network(inputs).logits, labels).backward()
        oracle.step()
    for name, value in network.state_dict().items():
        np.testing.assert_allclose(found[0][name], value.numpy(), rtol=1e-4, atol=1e-5)
        assert found[0][name].tobytes() == found[1][name].tobytes(), "nothing is kept of a round"


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_trains_with_adam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(synthetic, "settings", partial(synthetic.settings, **ADAM))
        adam, keep = federate(name, rounds=1, handlers=clients_of(name))
    sgd, _ = federate(name, rounds=1, handlers=clients_of(name))
    assert keep.reports[0].failures == {}
    assert all(np.isfinite(v).all() for v in adam.arrays.values())
    if name != "local":  # its global model stays
        assert model(adam) != model(sgd)


@pytest.mark.parametrize("name", ["fedavg", "bmsfed", "divfl", "fedmsplit", "local"])
def test_a_head_with_shared_weights_and_clients_that_lack_modalities(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_here(monkeypatch, HEADS)
    HEADS.add("weighted", Weighted)
    monkeypatch.setattr(METHODS.find(name), "head", lambda self: ("weighted", {}))
    state, keep = federate(name, rounds=3, encoder="mlp")
    assert all(r.failures == {} for r in keep.reports)
    assert {len(HELD[a.client_id]) for r in keep.reports for a in r.assignments} >= {2, 3}
    assert "head.query" in state.arrays
    assert all(np.isfinite(v).all() for v in state.arrays.values())


def test_shared_weights_of_a_head_are_averaged_over_all_others_over_their_trainers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_here(monkeypatch, HEADS)
    HEADS.add("weighted", Weighted)
    spec = replace(synthetic.spec("mlp"), head="weighted")
    start = {n: v.numpy().copy() for n, v in build_network(spec, 0).state_dict().items()}
    updates = []
    for number, name in enumerate(("c0", "c2", "c3")):
        held = HELD[name]
        task = Task(Orders("train", held, 1, name), select_parts(start, held))
        data = synthetic.client(name, n=30, seed=number, modalities=held)
        updates.append(run_task(task, data, synthetic.settings(network=spec)))
    strategy = FedAvg(3)
    strategy.state.arrays = start
    new = strategy.aggregate_fit(1, updates)
    for name, trainers in (("head.query", (0, 1, 2)), ("head.weight.touch", (0, 1))):
        mean = np.mean([updates[i].arrays[name] for i in trainers], axis=0)
        np.testing.assert_allclose(new[name], mean, rtol=1e-5, atol=1e-7)
    assert (new["head.query"] != start["head.query"]).any()
