"""LFM: the published schedule, disagreement against scipy, its weight on batches and clients."""

from __future__ import annotations

import doctest
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional as F

from bmsfed_app.models import Output, build_network
from client_app.objectives import lfm
from client_app.objectives.lfm import LFM, disagreement, schedule
from client_app.training import run_task
from strategies import Orders, Task
from strategies.protocol import select_parts
from tests import synthetic
from tests.client_app.test_packed import ALL, assert_alike, clients, settings, tasks


def test_the_published_weights_by_epoch_of_200() -> None:
    found = [schedule(epoch / 200) for epoch in (0, 50, 100, 150)]
    np.testing.assert_allclose(found, [0.204624, 0.436681, 0.539155, 0.821314], atol=1e-6)
    assert all(0 <= schedule(t) <= 1 for t in np.linspace(0, 1, 201))
    assert doctest.testmod(lfm).failed == 0


def test_disagreement_of_two_predictions_is_no_jensen_shannon_divergence() -> None:
    p, q = np.array([0.8, 0.2]), np.array([0.4, 0.6])
    logits = torch.tensor(np.log([p, q]))[:, None]
    assert float(disagreement(logits)) == pytest.approx(0.092871, abs=1e-6)
    assert jensenshannon(p, q) ** 2 == pytest.approx(0.086305, abs=1e-6)
    assert float(disagreement(logits[[0, 0]])) == pytest.approx(0.0, abs=1e-12)


def test_disagreement_of_three_is_the_mean_over_pairs_and_samples() -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = []
    for p, q in combinations(softmax(logits.numpy(), axis=2), 2):
        mean = (p + q) / 2
        terms.append((rel_entr(mean, p) + rel_entr(mean, q)).sum(axis=1) / 2)
    assert float(disagreement(logits)) == pytest.approx(np.mean(terms), rel=1e-12)
    assert torch.autograd.gradcheck(disagreement, logits.requires_grad_())


def test_far_logits_stay_finite() -> None:
    logits = torch.tensor([[[300.0, -300.0]], [[-300.0, 300.0]]]).requires_grad_()
    loss = disagreement(logits)
    loss.backward()
    assert float(loss) == pytest.approx(300 - np.log(2), rel=1e-5)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def batch(modalities: tuple[str, ...] = ALL) -> tuple[Any, Output, torch.Tensor]:
    network = build_network(synthetic.spec("mlp"), 0)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    inputs, labels = next(synthetic.client().batches(20, modalities))
    return network, network(inputs), labels


@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize("modalities", [ALL, ("touch", "smell")])
def test_a_batchs_loss_by_plain_numpy(alpha: float | None, modalities: tuple[str, ...]) -> None:
    network, output, labels = batch(modalities)
    context = synthetic.context(*modalities, shared=synthetic.settings(progress=0.5))
    found = LFM(alpha).bind(network, context).loss(output, labels)
    head = {n: v.detach().double().numpy() for n, v in network.head.named_parameters()}
    shares = [
        z.detach().double().numpy() @ head[f"weight.{m}"].T + head["bias"] / len(modalities)
        for m, z in output.features.items()
    ]
    rows = np.arange(20), labels.numpy()
    ce = -log_softmax(sum(shares), axis=1)[rows].mean()
    apart = []
    for u, v in combinations(shares, 2):
        p, q = softmax(u, axis=1), softmax(v, axis=1)
        apart.append((rel_entr((p + q) / 2, p) + rel_entr((p + q) / 2, q)).sum(axis=1).mean() / 2)
    weight = 0.539155 if alpha is None else alpha
    expected = 2 * (weight * ce + (1 - weight) * np.mean(apart))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_modalities_that_agree_at_one_half_leave_cross_entropy() -> None:
    network, output, labels = batch()
    same = dict.fromkeys(ALL, output.parts["touch"])
    output = Output(output.features, network.head.fuse(same), same)
    found = LFM(0.5).bind(network, synthetic.context()).loss(output, labels)
    torch.testing.assert_close(found, F.cross_entropy(output.logits, labels))


def arrays(modalities: tuple[str, ...] = ALL, **changes: Any) -> dict[str, bytes]:
    """What a client's training gives, in bytes."""
    told = settings(**changes)
    start = {n: v.numpy() for n, v in build_network(told.network, 0).state_dict().items()}
    task = Task(Orders("train", modalities, 1, "k"), select_parts(start, modalities))
    update = run_task(task, synthetic.client(modalities=modalities), told)
    return {n: v.tobytes() for n, v in update.arrays.items()}


def aligning(alpha: float | None) -> dict[str, Any]:
    return {"objective": "lfm", "objective_settings": {"alpha": alpha}}


def test_alpha_1_is_cross_entropy_at_twice_the_rate_to_the_bit() -> None:
    plain = {"lr": 0.05, "weight_decay": 0.0, "momentum": 0.9}
    assert arrays(**aligning(1.0), **(plain | {"lr": 0.025})) == arrays(**plain)


def test_one_modality_alone_is_cross_entropy_to_the_bit() -> None:
    assert arrays(("smell",), **aligning(None)) == arrays(("smell",))
    assert arrays(**aligning(None)) != arrays()


@pytest.mark.parametrize("modalities", [ALL, ("touch", "smell"), ("smell",)])
def test_clients_trained_together_answer_as_each_alone(modalities: tuple[str, ...]) -> None:
    told = settings(**aligning(None), progress=0.25, uni_weight=0.5)
    assert_alike(told, tasks(told, modalities), clients())
