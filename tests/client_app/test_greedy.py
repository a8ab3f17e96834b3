"""Greedy: speeds by brute force, and when a gate is frozen."""

import doctest
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import MMTMHead, MultiModalNetwork, Output, build_network
from client_app.data import LocalData
from client_app.objectives import greedy
from client_app.objectives.greedy import Greedy, imbalance, relative_squares, speed_groups
from client_app.training import run_task, train
from strategies import Orders, ServerState, Task, Update
from strategies.protocol import select_parts
from tests import synthetic
from tests.test_methods import federate

SPEC = replace(synthetic.spec("mlp"), head="mmtm", head_settings={"ratio": 4})
HELD = tuple(synthetic.WIDTHS)


def network(modalities: tuple[str, ...] = HELD, seed: int = 0) -> MultiModalNetwork:
    whole = build_network(SPEC, seed)
    arrays = select_parts({n: v.numpy() for n, v in whole.state_dict().items()}, modalities)
    part = MultiModalNetwork(SPEC, modalities)
    part.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items()})
    return part


def bound(model: MultiModalNetwork, objective: Greedy | None = None, **shared: Any) -> Greedy:
    context = synthetic.context(*model.modalities, shared=synthetic.settings(lr=0.01, **shared))
    return (objective or Greedy(0.01, 5)).bind(model, context)


def backward(model: MultiModalNetwork) -> None:
    inputs, labels = next(synthetic.client().batches(20, model.modalities))
    model.train()
    model.zero_grad()
    bound(model).loss(model(inputs), labels).backward()


class Watched(Greedy):
    """Notes who is frozen in every step's forward pass, and V of one modality after it."""

    def loss(self, output: Output, labels: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.head.frozen)
        return super().loss(output, labels)

    def on_start(self, data: LocalData) -> None:
        self.seen: list[str | None] = []
        super().on_start(data)


def watch(
    model: MultiModalNetwork, epochs: int, **settings: Any
) -> tuple[Watched, list[str | None]]:
    """Who was frozen, step by step; an epoch has three steps."""
    objective = Watched(**({"q": 5} | settings))
    bound(model, objective, local_epochs=epochs)
    train(objective, synthetic.client(modalities=model.modalities))
    return objective, objective.seen


# --- loss and speeds -----------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [HELD, ("sound",)])
def test_the_loss_is_the_sum_over_branches(modalities: tuple[str, ...]) -> None:
    model = network(modalities).eval()
    inputs, labels = next(synthetic.client().batches(20, modalities))
    output = model(inputs)
    found = bound(model).loss(output, labels)
    gates = model.head.gates(output.features)
    losses = [
        F.cross_entropy((z * gates[m]) @ model.head.weight[m].T + model.head.class_bias[m], labels)
        for m, z in output.features.items()
    ]
    torch.testing.assert_close(found, torch.stack(losses).sum())


def test_the_oracle() -> None:
    gap, fastest = imbalance(torch.tensor([4.0, 1.0, 1.0, 1.0]))
    assert gap == pytest.approx(0.602060, abs=1e-6)
    assert fastest == 0
    assert doctest.testmod(greedy).failed == 0


def test_three_speeds_and_sums_of_zero() -> None:
    gap, fastest = imbalance(torch.tensor([2.0, 30.0, 5.0, 1.0, 3.0, 10.0], dtype=torch.float64))
    assert gap == pytest.approx(math.log10(10 / 0.5))
    assert fastest == 1
    gap, _ = imbalance(torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    assert math.isfinite(gap)


def test_ratios_of_squares_by_brute_force() -> None:
    model = network(("touch", "smell"))
    backward(model)
    model.head.excite["smell"].grad = None  # as where its gate is frozen
    expected = []
    for kind in ("gate", "branch"):
        for m in ("touch", "smell"):
            grad = theta = 0.0
            for name, p in model.named_parameters():
                gate = name.startswith(("head.squeeze", f"head.excite.{m}"))
                gate = gate or name == f"head.excite_bias.{m}"
                own = f".{m}" in name and not name.startswith(("head.squeeze", "head.excite"))
                if gate if kind == "gate" else own:
                    grad += 0.0 if p.grad is None else float(p.grad.double().square().sum())
                    theta += float(p.detach().double().square().sum())
            expected.append(grad / theta)
    found = relative_squares(*speed_groups(model, model.head))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    parameters, groups = speed_groups(model, model.head)
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters()}
    assert groups.sum(0).tolist()[:3] == [2.0, 2.0, 2.0]  # U, U, c are in both gates
    assert set(groups.sum(0).tolist()[3:]) == {1.0}


# --- freezing ------------------------------------------------------------------------------------


def test_from_the_second_epoch_the_fastest_gate_is_frozen_for_q_steps() -> None:
    _, seen = watch(network(), 4, eps=0.0, q=2)
    assert seen[:4] == [None] * 4  # the first epoch, and the step after which it is first judged
    frozen = [m is not None for m in seen]
    assert frozen[4:] == [True, True, False, True, True, False, True, True]


def test_the_one_that_is_frozen_leads_the_sums() -> None:
    model = network()
    objective, seen = watch(model, 2, eps=0.0, q=5)
    speeds = (objective.sums[:3] / objective.sums[3:]).log10()  # of the four plain steps
    assert seen == [None] * 4 + [HELD[int(speeds.argmax())]] * 2
    # The same four steps by hand, on the same batches.
    other, rng = network(), synthetic.context().generator("batches")
    data = synthetic.client()
    sgd = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    sums = torch.zeros(6, dtype=torch.float64)
    batches = [*data.batches(20, HELD, rng), *data.batches(20, HELD, rng)][:4]
    other.train()
    for inputs, labels in batches:
        sgd.zero_grad()
        sum(F.cross_entropy(p, labels) for p in other(inputs).parts.values()).backward()
        sums += relative_squares(*speed_groups(other, other.head))
        sgd.step()
    torch.testing.assert_close(objective.sums, sums)


@pytest.mark.parametrize(
    ("modalities", "epochs", "settings"),
    [(HELD, 3, {"eps": 100.0}), (HELD, 1, {"eps": 0.0}), (("sound",), 3, {"eps": 0.0})],
    ids=["tolerated", "one epoch", "one modality"],
)
def test_when_nothing_is_frozen(
    modalities: tuple[str, ...], epochs: int, settings: dict[str, float]
) -> None:
    _, seen = watch(network(modalities), epochs, **settings)
    assert seen == [None] * (3 * epochs)


def test_a_frozen_gate_does_not_move_not_even_by_momentum_or_decay() -> None:
    model = network()
    watched: list[tuple[str | None, dict[str, torch.Tensor]]] = []

    class Noting(Greedy):
        def loss(self, output: Any, labels: Any) -> torch.Tensor:
            own = {n: p.detach().clone() for n, p in self.head.named_parameters()}
            own |= {n: b.clone() for n, b in self.head.named_buffers()}
            watched.append((self.head.frozen, own))
            return super().loss(output, labels)

    objective = bound(model, Noting(eps=0.0, q=2), local_epochs=3, weight_decay=0.1)
    train(objective, synthetic.client())
    steps = [(m, a, b) for (m, a), (_, b) in pairwise(watched) if m is not None]
    assert len(steps) >= 3
    for m, before, after in steps:
        for what in ("excite", "excite_bias"):
            assert torch.equal(before[f"{what}.{m}"], after[f"{what}.{m}"])
        assert not torch.equal(before[f"squeeze.{m}"], after[f"squeeze.{m}"])
        others = [o for o in HELD if o != m]
        assert all(not torch.equal(before[f"excite.{o}"], after[f"excite.{o}"]) for o in others)


def test_nothing_is_left_of_an_earlier_task() -> None:
    model = network()
    _, seen = watch(model, 2, eps=0.0, q=50)
    assert seen[-1] is not None
    assert isinstance(model.head, MMTMHead)
    assert model.head.frozen == seen[-1]
    model.restart({n: v.numpy() for n, v in model.state_dict().items()})  # for the next task
    assert model.head.frozen is None
    fresh = bound(model)
    fresh.on_start(synthetic.client())
    assert fresh.sums.tolist() == [0.0] * 6


def trained(**changes: Any) -> Update:
    whole = build_network(SPEC, 0)
    arrays = {n: v.numpy().copy() for n, v in whole.state_dict().items()}
    task = Task(Orders("train", HELD), arrays)
    settings = synthetic.settings(network=SPEC, objective="greedy", **changes)
    return run_task(task, synthetic.client(), settings)


def test_with_one_local_epoch_settings_change_nothing() -> None:
    eager, calm = {"eps": 0.0, "q": 1}, {"eps": 100.0, "q": 9}
    for epochs in (1, 2):
        one, other = (trained(local_epochs=epochs, objective_settings=s) for s in (eager, calm))
        same = all(np.array_equal(one.arrays[n], other.arrays[n]) for n in one.arrays)
        assert same == (epochs == 1)


def test_running_means_come_back_with_the_head() -> None:
    update = trained(local_epochs=2, objective_settings={"eps": 0.0, "q": 2})
    steps = [int(update.arrays[f"head.gate_steps.{m}"][0]) for m in HELD]
    assert sorted(steps) == [4, 6, 6]  # six steps, in two of which one gate was frozen
    assert update.arrays["head.gate_steps.touch"].dtype == np.int64
    assert all((update.arrays[f"head.gate_mean.{m}"] > 0).all() for m in HELD)
    assert update.measurements == {}


def test_the_plain_head_will_not_do() -> None:
    with pytest.raises(ValueError, match="needs the head 'mmtm', not 'linear'"):
        bound(build_network(synthetic.spec("mlp"), 0))


# --- federations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["own", "all"])
def test_a_federation_with_lacking_clients_resumes_bit_for_bit(columns: str) -> None:
    changes: dict[str, Any] = {"encoder": "mlp", "eps": 0.0, "q": 1, "head_columns": columns}
    whole, rows = federate("greedy", **changes)
    half, _ = federate("greedy", rounds=2, **changes)
    resumed, _ = federate("greedy", start=ServerState.from_bytes(half.to_bytes()), **changes)
    assert resumed.to_bytes() == whole.to_bytes()
    assert all(r.failures == {} for r in rows.reports)
    assert all(whole.arrays[f"head.gate_steps.{m}"][0] > 4 for m in HELD)
    calm, _ = federate("greedy", **(changes | {"eps": 100.0}))
    assert calm.to_bytes() != whole.to_bytes()
