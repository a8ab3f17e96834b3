"""Uni-modal losses: figures worked out by hand, who has none, clients packed and alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, NetworkSpec, Output, build_network
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.training import run_task
from strategies import Orders, Task
from strategies.protocol import select_parts
from tests import synthetic
from tests.client_app.test_packed import ALL, assert_alike, clients, prototypes, settings, tasks

PAIR = NetworkSpec({"a": "identity", "b": "identity"}, {"a": (2,), "b": (2,)}, 2)


def bound(network: MultiModalNetwork, weight: float) -> CrossEntropy:
    told = synthetic.settings(uni_weight=weight)
    return CrossEntropy().bind(network, synthetic.context(*network.modalities, shared=told))


def pair(a: list[float], b: list[float]) -> tuple[MultiModalNetwork, Output]:
    """A network whose parts are these, for one sample, and its output."""
    network = build_network(PAIR, 0)
    with torch.no_grad():
        for weight in network.head.weight.values():
            weight.copy_(torch.eye(2))
    output = network({"a": torch.tensor([a]), "b": torch.tensor([b])})
    for part in output.parts.values():
        part.retain_grad()
    return network, output


def gradients(a: list[float], b: list[float], weight: float) -> tuple[float, list[Tensor]]:
    """The loss of a sample of class 0, and its gradients at both parts and at the bias."""
    network, output = pair(a, b)
    loss = bound(network, weight).total(output, torch.tensor([0]))
    loss.backward()
    found = [*(p.grad[0] for p in output.parts.values()), network.head.bias.grad]
    return float(loss.detach()), found


def test_losses_and_gradients_as_worked_out_by_hand() -> None:
    loss, found = gradients([1.0, 0.0], [0.0, 1.0], 1.0)
    assert loss == pytest.approx(0.693147 + 0.313262 + 1.313262, abs=1e-6)
    expected = [[-0.768941, 0.768941], [-1.231059, 1.231059], [-1.5, 1.5]]
    np.testing.assert_allclose(torch.stack(found), expected, atol=1e-6)


@pytest.mark.parametrize(("weight", "size"), [(0.0, 0.000045), (1.0, 0.500045)])
def test_what_the_strong_modality_leaves_to_the_weak_one(weight: float, size: float) -> None:
    _, [_, weak, _] = gradients([10.0, 0.0], [0.0, 0.0], weight)
    np.testing.assert_allclose(weak, [-size, size], atol=1e-6)


@pytest.mark.parametrize("modalities", [ALL, ("touch", "smell"), ("sound",)])
def test_any_number_of_modalities(modalities: tuple[str, ...]) -> None:
    network = build_network(synthetic.spec("mlp"), 0)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    inputs, labels = next(synthetic.client().batches(20, modalities))
    output, objective = network(inputs), bound(network, 0.7)
    head = {n: v.detach().double().numpy() for n, v in network.head.named_parameters()}
    parts = {
        m: z.detach().double().numpy() @ head[f"weight.{m}"].T for m, z in output.features.items()
    }
    rows = np.arange(20), labels.numpy()

    def ce(logits: np.ndarray) -> float:
        return float(-log_softmax(logits + head["bias"], axis=1)[rows].mean())

    each = [ce(part) for part in parts.values()]
    found = objective.uni_losses(output, labels).detach()
    np.testing.assert_allclose(found, each, rtol=1e-5)
    expected = ce(sum(parts.values())) + (0.7 * sum(each) if len(each) > 1 else 0.0)
    assert float(objective.total(output, labels).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_client_with_one_modality_trains_by_plain_cross_entropy_to_the_bit() -> None:
    def trained(weight: float) -> dict[str, Any]:
        told = settings(uni_weight=weight)
        arrays = {n: v.numpy() for n, v in build_network(told.network, 0).state_dict().items()}
        task = Task(Orders("train", ("sound",), 1, "k"), select_parts(arrays, ("sound",)))
        return run_task(task, synthetic.client(modalities=("sound",)), told).arrays

    plain, weighed = trained(0.0), trained(2.0)
    assert {n: v.tobytes() for n, v in weighed.items()} == {
        n: v.tobytes() for n, v in plain.items()
    }


@pytest.mark.parametrize("modalities", [ALL, ("touch", "smell"), ("smell",)])
@pytest.mark.parametrize("objective", [{}, synthetic.ENHANCING])
def test_clients_trained_together_have_them_as_each_alone(
    modalities: tuple[str, ...], objective: dict[str, Any]
) -> None:
    told = settings(uni_weight=0.5, **objective)
    orders = {"prototypes": prototypes(), "weak": "smell", "ratio": 1.7}
    assert_alike(told, tasks(told, modalities, **orders), clients())


def test_a_head_without_columns_by_modality_has_none() -> None:
    spec = NetworkSpec(PAIR.encoders, PAIR.shapes, 2, head="cosine")
    network = build_network(spec, 0)
    output = network({m: torch.ones(1, 2) for m in "ab"})
    with pytest.raises(ValueError, match="the head 'cosine' has no columns by modality"):
        bound(network, 1.0).total(output, torch.tensor([0]))
