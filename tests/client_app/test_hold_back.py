"""bmsfed-plus at the client: strong modalities held back, and what is counted of held-out ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, build_network
from bmsfed_app.prototypes import class_means
from client_app.data import LocalData
from client_app.holdout import drawn_holdout
from client_app.objectives import build_objective
from client_app.objectives.hold_back import HoldBack
from client_app.packed import train_together
from client_app.training import run_task
from strategies import Orders, Task
from strategies.protocol import select_parts
from tests import synthetic
from tests.synthetic import WIDTHS

WEIGHT, SMOOTHING = 0.5, 0.3
PLAIN = synthetic.ENHANCEMENT | {"coefficient": "constant", "coefficient_value": 0.0}


def held_back(**changes: Any) -> dict[str, Any]:
    return PLAIN | {"smoothing": SMOOTHING, "holdout": 0.1, "holdout_until": 0.5} | changes


def bound(network: MultiModalNetwork, *modalities: str, **told: Any) -> HoldBack:
    settings = synthetic.settings(uni_weight=WEIGHT)
    objective = build_objective("hold_back", held_back())
    context = synthetic.context(*modalities, shared=settings, **told)
    context.begin({m: class_means(torch.eye(3, d), torch.arange(3), 3) for m, d in WIDTHS.items()})
    assert isinstance(objective, HoldBack)
    return objective.bind(network, context)


def batch(network: MultiModalNetwork) -> tuple[Any, Tensor]:
    inputs, labels = next(synthetic.client().batches(20, network.modalities))
    return network(inputs), labels


@pytest.mark.parametrize(
    ("told", "smoothed"),
    [
        ({"weak": "sound"}, {"touch", "smell"}),
        ({"weak": "smell"}, {"touch", "sound"}),
        ({"weak": None}, set()),
        ({"weak": "sound", "method_state": {"trusted": False}}, set()),
    ],
)
def test_strong_modalities_have_smoothed_losses_of_their_own(
    told: dict[str, Any], smoothed: set[str]
) -> None:
    network = build_network(synthetic.spec(), 0)
    output, labels = batch(network)
    expected = F.cross_entropy(output.logits, labels)
    for m, z in output.features.items():
        own = F.linear(z, network.head.weight[m], network.head.bias)
        e = SMOOTHING if m in smoothed else 0.0
        expected = expected + WEIGHT * F.cross_entropy(own, labels, label_smoothing=e)
    torch.testing.assert_close(bound(network, **told).total(output, labels), expected)


@pytest.mark.parametrize(("modality", "e"), [("touch", SMOOTHING), ("sound", 0.0)])
def test_who_trains_one_modality_smooths_it_unless_it_is_the_weak_one(
    modality: str, e: float
) -> None:
    network = MultiModalNetwork(synthetic.spec(), [modality])
    network.head.reset(torch.Generator().manual_seed(0))
    output, labels = batch(network)
    expected = F.cross_entropy(output.logits, labels, label_smoothing=e)
    found = bound(network, modality, weak="sound").total(output, labels)
    torch.testing.assert_close(found, expected)


def told(**changes: Any) -> Any:
    values = {"objective": "hold_back", "objective_settings": held_back(**changes)}
    return synthetic.settings(network=synthetic.spec("mlp"), uni_weight=WEIGHT, **values)


def task(trusted: bool, client_id: str = "c") -> Task:
    orders = Orders("train", tuple(WIDTHS), 2, client_id, weak="smell", ratio=2.0)
    arrays = {n: v.numpy() for n, v in build_network(synthetic.spec("mlp"), 3).state_dict().items()}
    return Task(replace(orders, method_state={"trusted": trusted}), arrays)


def alone(modality: str, client_id: str = "c") -> Task:
    asked = task(trusted=True, client_id=client_id)
    orders = replace(asked.orders, modalities=(modality,))
    return Task(orders, select_parts(asked.arrays, [modality]))


def test_what_is_not_trusted_is_cross_entropy_with_uni_modal_losses_to_the_bit() -> None:
    plain = synthetic.settings(network=synthetic.spec("mlp"), uni_weight=WEIGHT)
    settings = told(holdout=0.0, coefficient_value=1.0)
    found = run_task(task(trusted=False), synthetic.client(), settings)
    expected = run_task(task(trusted=False), synthetic.client(), plain)
    for name, value in expected.arrays.items():
        assert np.array_equal(found.arrays[name], value), name
    trusted = run_task(task(trusted=True), synthetic.client(), settings)
    assert not np.array_equal(trusted.arrays["head.bias"], found.arrays["head.bias"])


def gapped() -> LocalData:
    client = synthetic.client()
    has = torch.arange(len(client)) % 4 > 0
    return replace(client, split=client.split.lacking({"smell": has}))


@pytest.mark.parametrize("data", [synthetic.client(), gapped()], ids=["whole", "gaps"])
def test_counts_are_those_of_a_loop_and_held_out_samples_are_not_trained_on(
    data: LocalData,
) -> None:
    settings, asked = told(holdout=0.2), task(trusted=True)
    update = run_task(asked, data, settings)
    context = synthetic.context(shared=settings, client_id="c")
    held_out = drawn_holdout(data, 0.2, context)
    assert int(held_out.sum()) == 12
    network = build_network(synthetic.spec("mlp"), 3).eval()
    inputs, labels = next(data.batches(60, data.modalities))
    for m in data.modalities:
        counted = [0, 0]
        mask = data.present(m)
        for i in range(60):
            if not held_out[i] or (mask is not None and not mask[i]):
                continue
            z = network.encode(m, inputs[m][i : i + 1])
            own = F.linear(z, network.head.weight[m], network.head.bias)
            counted[0] += 1
            counted[1] += int(own.argmax() == labels[i])
        assert update.measurements[f"counts.{m}"].tolist() == counted
    kept = replace(data, index=data.index[~held_out])
    without = run_task(asked, kept, told(holdout=0.0, coefficient_value=0.0))
    assert update.metrics["steps"] == without.metrics["steps"]


def test_what_is_held_out_of_all_modalities_is_held_out_of_the_weak_one_alone() -> None:
    """Garbage in what "all" rounds hold out changes nothing that who trains one alone learns."""
    data, settings = gapped(), told(holdout=0.2)
    out = data.index[drawn_holdout(data, 0.2, synthetic.context(shared=settings, client_id="c"))]
    garbled = data.split.stores["smell"].clone()
    garbled[out] += 100.0
    split = replace(data.split, stores={**data.split.stores, "smell": garbled})
    found = run_task(alone("smell"), replace(data, split=split), settings)
    expected = run_task(alone("smell"), data, settings)
    for name, value in expected.arrays.items():
        assert np.array_equal(found.arrays[name], value), name
    has = data.split.present["smell"][out]
    assert 0 < has.sum() < len(out)
    assert expected.measurements["counts.smell"][0] == has.sum()


@pytest.mark.parametrize("client_id", [f"c{i}" for i in range(8)])
def test_the_last_sample_of_a_modality_is_not_held_out(client_id: str) -> None:
    whole = synthetic.client(client_id, n=4)
    has = {"smell": torch.arange(4) == 2, "sound": torch.arange(4) < 2}
    data, settings = replace(whole, split=whole.split.lacking(has)), told(holdout=0.5)
    context = synthetic.context(shared=settings, client_id=client_id)
    both, free = drawn_holdout(data, 0.5, context), drawn_holdout(whole, 0.5, context)
    assert not both[2]
    assert not both[:2].all()
    assert (both <= free).all()
    for m, rows in has.items():
        assert torch.equal(drawn_holdout(data.having((m,)), 0.5, context), both[rows])
    update = run_task(alone("smell", client_id), data, settings)
    assert update.measurements["counts.smell"].tolist() == [0, 0]


def test_later_all_samples_train_and_nothing_is_counted() -> None:
    asked = task(trusted=True)
    late = run_task(asked, synthetic.client(), replace(told(holdout=0.2), progress=0.5))
    never = run_task(asked, synthetic.client(), replace(told(holdout=0.0), progress=0.5))
    assert not any(name.startswith("counts.") for name in late.measurements)
    for name, value in never.arrays.items():
        assert np.array_equal(late.arrays[name], value), name


def test_packed_clients_are_held_back_alike() -> None:
    settings = replace(told(coefficient_value=1.0), packed_clients=2)
    data = [synthetic.client(), replace(synthetic.client(), client_id="d")]
    for trusted in (True, False):
        tasks = [task(trusted, c.client_id) for c in data]
        together = train_together(tasks, data, settings)
        for each, client, update in zip(tasks, data, together, strict=True):
            alone = run_task(each, client, settings)
            for name, value in {**alone.arrays, **alone.measurements}.items():
                found = {**update.arrays, **update.measurements}[name]  # type: ignore[union-attr]
                np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=name)
