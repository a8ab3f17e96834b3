"""What a client of FedPAC measures, trains and sends."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import Output, build_network
from bmsfed_app.prototypes import ClassMeans, class_means
from client_app.objectives.feature_alignment import FeatureAlignment, feature_statistics
from client_app.training import run_task
from strategies import Orders, Prototypes, Task, Update
from strategies.protocol import select_parts
from tests import synthetic
from tests.federation import initial

ALL = tuple(synthetic.WIDTHS)
SPEC = synthetic.spec("mlp")
SETTINGS = {"lam": 1.0, "head_lr": 0.1}


def run(held: tuple[str, ...] = ALL, server_round: int = 0, **changes: object) -> Update:
    values = {"network": SPEC, "objective": "feature_alignment", "objective_settings": SETTINGS}
    orders = Orders("train", held, server_round, "c")
    data = synthetic.client(modalities=held, n=50)
    settings = synthetic.settings(**(values | changes))
    return run_task(Task(orders, select_parts(initial(SPEC), held)), data, settings)


def test_statistics_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    means = class_means(z, torch.tensor([0, 0, 1, 1]), 3)
    shares, variance = feature_statistics(z, means)
    torch.testing.assert_close(
        shares, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    )
    assert float(variance) == pytest.approx(0.625)


@pytest.mark.parametrize("held", [ALL, ("smell",)])
def test_statistics_are_of_the_received_encoders(held: tuple[str, ...]) -> None:
    sent = run(held).measurements
    network = build_network(SPEC, 0).eval()
    inputs, labels = next(synthetic.client(n=50).batches(50, ALL))
    assert set(sent) == {f"{what}.{m}" for m in held for what in ("shares", "variance")}
    for m in held:
        z = network.encode(m, inputs[m]).detach().double()
        h = torch.stack([z[labels == c].sum(dim=0) / 50 for c in range(synthetic.CLASSES)])
        np.testing.assert_allclose(sent[f"shares.{m}"], h, atol=1e-6)
        v = (z.square().sum(dim=1).mean() - h.square().sum()) / 50
        np.testing.assert_allclose(sent[f"variance.{m}"], [float(v)], rtol=1e-5)


def test_the_head_is_trained_once_alone_then_the_encoders_without_it() -> None:
    received = initial(SPEC)
    still = run(lr=0.0, local_epochs=1)
    moved = run(lr=0.1, local_epochs=3)
    for name, value in received.items():
        if name.startswith("head."):
            assert not np.array_equal(still.arrays[name], value)
            np.testing.assert_array_equal(still.arrays[name], moved.arrays[name])
        else:
            np.testing.assert_array_equal(still.arrays[name], value)
            assert not np.array_equal(moved.arrays[name], value)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_the_heads_epoch_is_sgd_on_the_received_features(clip: float) -> None:
    """Heads as matrices, gradients of the cross-entropy by hand, in float64."""
    found = run(
        lr=0.0, momentum=0.8, weight_decay=0.01, batch_size=20, clip_norm=clip, server_round=4
    )
    network = build_network(SPEC, 0).eval()
    data = synthetic.client(n=50)
    inputs, labels = next(data.batches(50, ALL))
    z = torch.cat([network.encode(m, inputs[m]).detach() for m in ALL], dim=1).double()
    z = torch.cat([z, torch.ones(50, 1, dtype=torch.float64)], dim=1)
    blocks = [*(network.head.weight[m] for m in ALL), network.head.bias[:, None]]
    w = torch.cat([b.detach() for b in blocks], dim=1).double()
    velocity = torch.zeros_like(w)
    context = synthetic.context(round=4, client_id="c")
    order = torch.randperm(50, generator=context.generator("head"))
    for rows in order.split(20):
        error = torch.softmax(z[rows] @ w.T, dim=1) - F.one_hot(labels[rows], synthetic.CLASSES)
        gradient = error.T @ z[rows] / len(rows)
        if clip:
            gradient *= min(1.0, clip / float(gradient.norm()))
        velocity = 0.8 * velocity + gradient + 0.01 * w
        w = w - 0.1 * velocity
    sent = [*(found.arrays[f"head.weight.{m}"] for m in ALL), found.arrays["head.bias"][:, None]]
    np.testing.assert_allclose(np.concatenate(sent, axis=1), w, rtol=1e-4, atol=1e-5)


def means(rows: list[list[float]], counts: list[int]) -> ClassMeans:
    return ClassMeans(torch.tensor(rows), torch.tensor(counts))


@pytest.mark.parametrize(
    ("server_round", "known", "distance"),
    [
        (1, True, 0.0),
        # a: (1 - 0)^2, (3 - 2)^2, each of two numbers; b: its own prototypes, 0.
        (2, True, (2 * 1.0 + 2 * 1.0) / 4),
        (2, False, (2 * 0.25 + 2 * 1.0) / 4),
    ],
)
def test_features_are_pulled_to_global_prototypes_from_round_two_on(
    server_round: int, known: bool, distance: float
) -> None:
    z = {"a": torch.tensor([[1.0, 1.0], [3.0, 3.0]]), "b": torch.tensor([[4.0], [5.0]])}
    output = Output(z, torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    labels = torch.tensor([0, 1])
    context = synthetic.context("a", "b", round=server_round)
    context.local_prototypes = {
        "a": means([[0.5, 0.5], [2.0, 2.0]], [1, 1]),
        "b": means([[4.0], [5.0]], [1, 1]),
    }
    # The server knows class 0 of modality a at most, and nothing of b.
    context.global_prototypes = {"a": means([[0.0, 0.0], [9.0, 9.0]], [int(known), 0])}
    network = build_network(synthetic.spec(), 0)
    found = FeatureAlignment(3.0, 0.1).bind(network, context).loss(output, labels)
    expected = float(F.cross_entropy(output.logits, labels)) + 3.0 * distance
    assert float(found) == pytest.approx(expected)


def test_prototypes_from_the_server_change_what_encoders_learn_but_not_the_head() -> None:
    held = ("touch", "smell")
    data = synthetic.client(modalities=held)
    rng = np.random.default_rng(0)
    known = Prototypes(rng.normal(size=(3, 64)).astype(np.float32), np.array([5, 0, 5]))
    orders = Orders("train", held, round=2, prototypes={"smell": known})
    task = Task(orders, select_parts(initial(SPEC), held))
    settings = {"network": SPEC, "objective": "feature_alignment"}
    on, off = (
        run_task(
            task,
            data,
            synthetic.settings(**settings, objective_settings=SETTINGS | {"lam": lam}),
        )
        for lam in (1.0, 0.0)
    )
    for name in on.arrays:
        same = np.array_equal(on.arrays[name], off.arrays[name])
        assert same == name.startswith("head."), name
