"""MMPareto: published combinations, gradients against plain loops, conflicts that are told."""

from __future__ import annotations

import doctest
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output, build_network
from client_app.objectives import mmpareto
from client_app.objectives.mmpareto import MMPareto, combine
from client_app.training import run_task, train
from strategies import Orders, Task, Update
from strategies.protocol import select_parts
from tests import synthetic

ALL = tuple(synthetic.WIDTHS)
Heads = Literal["shared", "own"]
HEADS: dict[str, str] = {"shared": "linear", "own": "blending"}


# --- two gradients of one encoder ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("joint", "uni", "expected", "conflict"),
    [
        ([[1.0, 0.0]], [[-1.0, 1.0]], [[0.670820, 1.341641]], True),
        ([[1.0], [0.0]], [[-1.0], [1.0]], [[0.6], [1.5]], True),
        ([[1.0, 0.0]], [[-0.5, 2.0]], [[2.473864, 1.855398]], True),
        ([[1.0, 0.0]], [[1.0, 1.0]], [[3.0, 1.5]], False),
        ([[0.0, 0.0]], [[1.0, 2.0]], [[1.5, 3.0]], False),
        ([[1.0, 2.0]], [[0.0, 0.0]], [[1.5, 3.0]], False),
        ([[1.0, 2.0]], [[-1.0, -2.0]], [[0.0, 0.0]], True),
        # The first tensor of v is 0, but for rounding, where that of g + h is 1 (official: NaN).
        ([[2.0], [1.0]], [[-1.0], [1.0]], [[0.0], [3.0]], True),
    ],
)
def test_combinations_as_worked_out_by_hand(
    joint: list[Any], uni: list[Any], expected: list[Any], conflict: bool
) -> None:
    found, told = combine([torch.tensor(x) for x in joint], [torch.tensor(x) for x in uni], 1.5)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    assert bool(told) == conflict


def reference(joint: list[Tensor], uni: list[Tensor], factor: float) -> tuple[list[Tensor], bool]:
    """The shortest of 100,001 combinations where they conflict, then each tensor by itself."""
    g, h = (torch.cat([x.flatten() for x in grads]).double() for grads in (joint, uni))
    conflict = float(g @ h) <= 0
    shares = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    lengths = (
        shares**2 * (g @ g) + 2 * shares * (1 - shares) * (g @ h) + (1 - shares) ** 2 * (h @ h)
    )
    k = float(shares[lengths.argmin()]) if conflict else 0.5
    found = []
    for x, y in zip(joint, uni, strict=True):
        v = 2 * (k * x + (1 - k) * y)
        found.append(factor * max(1.0, float((x + y).norm() / v.norm())) * v)
    return found, conflict


def test_a_conflict_gives_the_shortest_combination() -> None:
    rng = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(20):
        joint, uni = ([torch.randn(s, generator=rng) for s in ((3, 2), (3,))] for _ in "gh")
        found, conflict = combine(joint, uni, 1.2)
        expected, seen_conflict = reference(joint, uni, 1.2)
        seen.append(seen_conflict)
        assert bool(conflict) == seen_conflict
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3)
    assert 5 < sum(seen) < 15


# --- a client ------------------------------------------------------------------------------------


def settings(name: str = "mmpareto", heads: Heads = "shared", **changes: Any) -> Any:
    own = {"objective": name}
    if name == "mmpareto":
        own["objective_settings"] = {"factor": changes.pop("factor", 1.5), "heads": heads}
    spec = replace(synthetic.spec("mlp"), head=HEADS[heads], freeze=changes.pop("freeze", {}))
    values = {"network": spec, "uni_weight": 1.0, "local_epochs": 2} | own
    return synthetic.settings(**(values | changes))


def client_update(told: Any, modalities: tuple[str, ...] = ALL) -> Update:
    arrays = {n: v.numpy() for n, v in build_network(told.network, 0).state_dict().items()}
    task = Task(Orders("train", modalities, 1, "k"), select_parts(arrays, modalities))
    return run_task(task, synthetic.client(modalities=modalities), told)


def stepped(
    network: MultiModalNetwork, output: Output, labels: Tensor, heads: Heads, weight: float
) -> dict[str, bool]:
    """Leave a batch's gradients on the network, encoder by encoder; return who conflicts."""
    head, conflicts = network.head, {}

    def uni(m: str) -> Tensor:
        z = output.features[m]
        if heads == "own":
            return F.cross_entropy(z @ head.own_weight[m].T + head.own_bias[m], labels)
        return F.cross_entropy(z @ head.weight[m].T + head.bias, labels)

    joint = F.cross_entropy(output.logits, labels)
    every = [weight * uni(m) for m in output.features]
    (joint + torch.stack(every).sum()).backward(retain_graph=True)  # for the head
    for m, loss in zip(output.features, every, strict=True):
        parameters = list(network.encoders[m].parameters())
        g, h = (torch.autograd.grad(x, parameters, retain_graph=True) for x in (joint, loss))
        combined, conflicts[m] = reference(list(g), list(h), 1.5)
        for p, x in zip(parameters, combined, strict=True):
            p.grad = x
    return conflicts


@pytest.mark.parametrize("heads", ["shared", "own"])
def test_training_is_that_of_a_plain_loop(heads: Heads) -> None:
    told = settings(heads=heads, uni_weight=0.7, lr=0.2)
    context = synthetic.context(shared=told)
    ours, theirs = (build_network(told.network, 3) for _ in range(2))
    objective = MMPareto(1.5, heads).bind(ours, context)
    metrics = train(objective, synthetic.client(n=50))

    optimizer, rng = context.optimizer(theirs.parameters()), context.generator("batches")
    steps: list[dict[str, bool]] = []
    losses = []
    for _ in range(2):
        losses.clear()
        for inputs, labels in synthetic.client(n=50).batches(20, ALL, rng):
            output = theirs(inputs)
            optimizer.zero_grad()
            steps.append(stepped(theirs, output, labels, heads, 0.7))
            optimizer.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=2e-4, msg=name)
    assert metrics["steps"] == len(steps)
    told_shares = objective.metrics()
    for m in ALL:
        share = sum(s[m] for s in steps) / len(steps)
        assert told_shares[f"conflicts.{m}"] == pytest.approx(share)


def test_the_loss_that_is_told_has_the_uni_modal_losses_in_it() -> None:
    found, plain = (client_update(settings(n)) for n in ("mmpareto", "cross_entropy"))
    first = client_update(settings(local_epochs=1, batch_size=60))
    expected = client_update(settings("cross_entropy", local_epochs=1, batch_size=60))
    assert first.metrics["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-6)
    assert found.metrics["loss"] != plain.metrics["loss"]


def test_factor_1_without_conflict_is_cross_entropy_with_the_same_losses() -> None:
    found = client_update(settings(factor=1.0, local_epochs=1))
    assert {n: v for n, v in found.metrics.items() if n.startswith("conflicts")} == {
        f"conflicts.{m}": 0.0 for m in ALL
    }
    expected = client_update(settings("cross_entropy", local_epochs=1))
    for name, value in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    other = client_update(settings(factor=1.5, local_epochs=1))
    assert not np.allclose(
        other.arrays["encoders.touch.layers.1.weight"],
        expected.arrays["encoders.touch.layers.1.weight"],
        atol=1e-4,
    )


@pytest.mark.parametrize("heads", ["shared", "own"])
def test_one_modality_alone_is_plain_cross_entropy_to_the_bit(heads: Heads) -> None:
    found, plain = (
        client_update(settings(name, heads), ("sound",)) for name in ("mmpareto", "cross_entropy")
    )
    assert {n: v.tobytes() for n, v in found.arrays.items()} == {
        n: v.tobytes() for n, v in plain.arrays.items()
    }
    assert not any(n.startswith("conflicts") for n in found.metrics)


def test_what_is_frozen_stays_and_conflicts_with_nothing() -> None:
    found = client_update(settings(freeze={"touch": ["*"], "sound": ["layers.1.*"]}))
    assert not any(n.startswith("encoders.touch") for n in found.arrays)
    told = {n for n in found.metrics if n.startswith("conflicts")}
    assert told == {"conflicts.sound", "conflicts.smell"}


def test_own_heads_need_the_head_that_has_them() -> None:
    with pytest.raises(ValueError, match="heads 'own' needs the head 'blending', not 'linear'"):
        MMPareto(1.5, "own").bind(build_network(synthetic.spec(), 0), synthetic.context())


def test_examples() -> None:
    assert doctest.testmod(mmpareto).failed == 0
