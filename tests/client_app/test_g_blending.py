"""G-Blending's local objective: blended losses, samples held out, losses measured."""

import doctest
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.nn import functional as F

from bmsfed_app.models import build_network
from client_app import training
from client_app.data import LocalData
from client_app.objectives import LocalContext, g_blending
from client_app.objectives.g_blending import GradientBlending
from client_app.training import run_task
from strategies import Orders, Task, Update
from strategies.protocol import select_parts
from tests import synthetic

SPEC = replace(synthetic.spec("mlp"), head="blending")
WEIGHTS = {"joint": 0.5, "touch": 0.2, "sound": 0.3, "smell": 0.0}
NETWORK = build_network(SPEC, 0)
ARRAYS = {n: v.numpy().copy() for n, v in NETWORK.state_dict().items()}


def context(weights: dict[str, float], server_round: int = 1, name: str = "k") -> LocalContext:
    told = {"method_state": {"weights": weights}, "round": server_round, "client_id": name}
    return synthetic.context(shared=synthetic.settings(seed=3), **told)


def bound(
    weights: dict[str, float], holdout: float = 0.1, *, measure: bool = True, **told: Any
) -> GradientBlending:
    return GradientBlending(holdout, measure).bind(NETWORK, context(weights, **told))


def batch(modalities: tuple[str, ...] = tuple(synthetic.WIDTHS)) -> tuple[Any, torch.Tensor]:
    inputs, labels = next(synthetic.client().batches(20, modalities))
    return NETWORK(inputs), labels


def blended(weights: dict[str, float], *modalities: str) -> float:
    output, labels = batch(modalities or tuple(synthetic.WIDTHS))
    return float(bound(weights).loss(output, labels).detach())


def parts(*modalities: str) -> dict[str, float]:
    output, labels = batch(modalities or tuple(synthetic.WIDTHS))
    head = NETWORK.head
    own = {m: F.linear(z, head.own_weight[m], head.own_bias[m]) for m, z in output.features.items()}
    losses = {"joint": output.logits} | own
    return {n: float(F.cross_entropy(v, labels).detach()) for n, v in losses.items()}


def test_losses_are_blended_by_the_servers_weights() -> None:
    expected = sum(WEIGHTS[n] * loss for n, loss in parts().items())
    assert blended(WEIGHTS) == pytest.approx(expected, rel=1e-6)


def test_weights_are_scaled_to_what_is_there() -> None:
    found = parts("touch")
    expected = (0.5 * found["joint"] + 0.2 * found["touch"]) / 0.7
    assert blended(WEIGHTS, "touch") == pytest.approx(expected, rel=1e-6)
    assert blended(WEIGHTS, "smell") == pytest.approx(parts("smell")["joint"], rel=1e-6)
    equal = sum(parts("touch", "smell").values()) / 3  # nothing there has a weight
    assert blended({"sound": 1.0}, "touch", "smell") == pytest.approx(equal, rel=1e-6)
    assert doctest.testmod(g_blending).failed == 0


def test_heads_of_weight_0_are_not_touched() -> None:
    output, labels = batch()
    NETWORK.zero_grad()
    bound(WEIGHTS).loss(output, labels).backward()
    grads = {m: NETWORK.head.own_weight[m].grad for m in synthetic.WIDTHS}
    assert grads["smell"] is None
    assert NETWORK.head.own_bias["smell"].grad is None
    assert grads["touch"].any()


def test_all_weight_on_the_joint_loss_is_cross_entropy_bit_for_bit() -> None:
    output, labels = batch()
    found = bound({"joint": 1.0}).loss(output, labels)
    assert torch.equal(found, F.cross_entropy(output.logits, labels))


# --- samples held out ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "holdout", "count"),
    [(60, 0.1, 6), (60, 0.5, 30), (4, 0.1, 1), (3, 0.5, 2), (2, 0.5, 1), (1, 0.1, 0), (1, 0.5, 0)],
)
def test_how_many_samples_are_held_out(n: int, holdout: float, count: int) -> None:
    data = synthetic.client(n=n)
    kept = bound(WEIGHTS, holdout).training_data(data)
    assert len(kept) == n - count
    assert set(kept.index.tolist()) < set(data.index.tolist()) or count == 0
    assert kept.index.tolist() == sorted(kept.index.tolist())


def test_the_split_depends_on_seed_and_client_only() -> None:
    data = synthetic.client()

    def kept(server_round: int, name: str) -> list[int]:
        split = bound(WEIGHTS, server_round=server_round, name=name).training_data(data)
        return split.index.tolist()

    assert kept(1, "k") == kept(17, "k") != kept(1, "other")


def test_nothing_is_held_out_at_0() -> None:
    data = synthetic.client()
    assert bound(WEIGHTS, 0.0, measure=False).training_data(data) is data


# --- losses --------------------------------------------------------------------------------------


def scattered(n: int = 40, modalities: tuple[str, ...] = tuple(synthetic.WIDTHS)) -> LocalData:
    """A client whose rows lie scattered in a split that others share."""
    index = torch.randperm(90, generator=torch.Generator().manual_seed(2))[:n]
    return LocalData("k", synthetic.split(90, 5), index, modalities, synthetic.CLASSES)


def trained(data: LocalData, **changes: Any) -> Update:
    orders = Orders("train", data.modalities, 0, "k", method_state={"weights": WEIGHTS})
    task = Task(orders, select_parts(ARRAYS, data.modalities))
    values: dict[str, Any] = {
        "network": SPEC,
        "objective": "g_blending",
        "objective_settings": {"holdout": 0.2, "measure": True},
        "seed": 3,
        "local_epochs": 2,
    }
    return run_task(task, data, synthetic.settings(**(values | changes)))


def losses(arrays: dict[str, np.ndarray], data: LocalData, name: str) -> np.ndarray:
    """Loss of every sample by plain numpy, in float64."""
    z = {}
    for m in data.modalities:
        x = data.split.stores[m][data.index].double().numpy()
        for i, layer in enumerate((1, 3)):
            w = arrays[f"encoders.{m}.layers.{layer}.weight"].astype(float)
            x = x @ w.T + arrays[f"encoders.{m}.layers.{layer}.bias"]
            x = np.maximum(x, 0) if i == 0 else x
        z[m] = x
    if name == "joint":
        logits = sum(z[m] @ arrays[f"head.weight.{m}"].T.astype(float) for m in z)
        logits = logits + arrays["head.bias"]
    else:
        own = arrays[f"head.own_weight.{name}"].T.astype(float)
        logits = z[name] @ own + arrays[f"head.own_bias.{name}"]
    return -log_softmax(logits, axis=1)[np.arange(len(data)), data.labels.numpy()]


@pytest.mark.parametrize("modalities", [tuple(synthetic.WIDTHS), ("sound",)])
def test_measured_losses_are_those_of_received_and_trained_model(
    modalities: tuple[str, ...],
) -> None:
    data = scattered(modalities=modalities)
    update = trained(data)
    kept = bound(WEIGHTS, 0.2).training_data(data).index
    held = ~np.isin(data.index.numpy(), kept.numpy())
    assert held.sum() == 8
    assert set(update.measurements) == {"joint", *modalities}
    for name, found in update.measurements.items():
        assert found.dtype == np.float64
        before, after = (losses(a, data, name) for a in (ARRAYS, update.arrays))
        expected = [x[s].mean() for x in (before, after) for s in (~held, held)]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert update.num_samples == 40


def test_held_out_samples_train_nothing() -> None:
    data = scattered()
    changed = replace(data, split=synthetic.split(90, 5))
    kept = bound(WEIGHTS, 0.2).training_data(data).index
    away = torch.tensor(sorted(set(range(90)) - set(kept.tolist())))
    for store in changed.split.stores.values():
        store[away] += 5.0
    one, other = trained(data), trained(changed)
    assert all(np.array_equal(one.arrays[n], other.arrays[n]) for n in one.arrays)
    assert not np.array_equal(one.measurements["joint"], other.measurements["joint"])


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"objective": "cross_entropy", "objective_settings": {}}, 1),
        ({}, 2),
        ({"prototypes": False}, 2),
        ({"objective_settings": {"holdout": 0.0, "measure": False}}, 1),
    ],
)
def test_measuring_takes_one_more_pass_and_only_where_it_is_asked_for(
    changes: dict[str, Any], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract: Callable[..., Any] = training.extract_features
    calls = []
    monkeypatch.setattr(
        training,
        "extract_features",
        lambda *a: calls.append(1) or extract(*a),  # type: ignore
    )
    update = trained(scattered(), **({"prototypes": True} | changes))
    assert len(calls) == passes
    assert bool(update.measurements) == (passes == 2)


def test_a_client_with_one_sample_trains_and_measures_nothing() -> None:
    update = trained(scattered(1))
    assert update.measurements == {}
    assert not np.array_equal(update.arrays["head.bias"], ARRAYS["head.bias"])


def test_the_plain_head_will_not_do() -> None:
    plain = build_network(synthetic.spec("mlp"), 0)
    with pytest.raises(ValueError, match="needs the head 'blending', not 'linear'"):
        GradientBlending(0.1, measure=True).bind(plain, context(WEIGHTS))
