"""What a client of MFedMC trains and measures."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.models import build_network
from client_app.objectives.separate import contribution
from client_app.training import run_task
from strategies import Arrays, Orders, Task, Update
from strategies.messages import Kind
from strategies.protocol import select_parts
from tests import synthetic
from tests.client_app.test_packed import assert_alike, clients, settings, tasks
from tests.federation import initial

ALL = tuple(synthetic.WIDTHS)
SPEC = synthetic.spec("mlp")


def run(
    held: tuple[str, ...] = ALL,
    kind: Kind = "train",
    head_lr: float = 0.0,
    n: int = 50,
    arrays: Arrays | None = None,
    **told: object,
) -> Update:
    values = {"network": SPEC, "objective": "separate", "objective_settings": {"head_lr": head_lr}}
    received = select_parts(arrays or initial(SPEC), held)
    task = Task(Orders(kind, held, 3, "c"), received)
    data = synthetic.client("c", n, modalities=held)
    return run_task(task, data, synthetic.settings(**(values | told)))


# --- contributions ------------------------------------------------------------------------------


def test_a_contribution_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert float(contribution(F.linear(z, torch.eye(2)))) == 2.0


def test_contributions_are_shapley_values_by_all_coalitions() -> None:
    """Of every logit, where what is not in the coalition takes its mean; summed as magnitudes."""
    rng = np.random.default_rng(0)
    names, n, k = range(3), 6, 4
    parts = rng.normal(size=(3, n, k))
    expected = np.zeros(3)
    for m in names:
        others = [j for j in names if j != m]
        value = np.zeros((n, k))
        for size in range(3):
            for coalition in combinations(others, size):
                weight = factorial(size) * factorial(2 - size) / factorial(3)
                without = _logits(parts, coalition)
                value += weight * (_logits(parts, (*coalition, m)) - without)
        expected[m] = np.abs(value).sum()
    found = [float(contribution(torch.from_numpy(p))) for p in parts]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def _logits(parts: np.ndarray, there: tuple[int, ...]) -> np.ndarray:
    """Logits (n, k), mean over the background of what is not there."""
    n = parts.shape[1]
    background = [
        sum(parts[m] if m in there else parts[m][[b] * n] for m in range(len(parts)))
        for b in range(n)
    ]
    return np.mean(background, axis=0)


@pytest.mark.parametrize("kind", ["measure", "train"])
@pytest.mark.parametrize("held", [ALL, ("smell",)])
def test_contributions_and_losses_of_a_client(kind: Kind, held: tuple[str, ...]) -> None:
    """At the received model of who measures, at the trained one of who trains."""
    update = run(held, kind)
    assert set(update.measurements) == {f"{w}.{m}" for w in ("contribution", "loss") for m in held}
    network = build_network(SPEC, 0).eval()
    arrays = {n: torch.from_numpy(v) for n, v in (initial(SPEC) | update.arrays).items()}
    network.load_state_dict(arrays)
    inputs, labels = next(synthetic.client(n=50).batches(50, ALL))
    for m in held:
        z = network.encode(m, inputs[m]).detach()
        loss = F.cross_entropy(z @ network.head.weight[m].T + network.head.bias, labels)
        np.testing.assert_allclose(update.measurements[f"loss.{m}"], [float(loss)], rtol=1e-5)
        part = (z - z.mean(dim=0)) @ network.head.weight[m].T
        sent = update.measurements[f"contribution.{m}"]
        np.testing.assert_allclose(sent, [float(part.abs().sum())], rtol=1e-4)


def test_at_most_50_samples_are_drawn() -> None:
    """Samples are alike, so that more of them would add to the sum."""
    few, many = (run(kind="measure", n=n).measurements for n in (50, 400))
    for m in ALL:
        ratio = many[f"contribution.{m}"] / few[f"contribution.{m}"]
        assert 0.7 < ratio < 1.4
        assert ratio != 1


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [ALL, ("touch", "smell"), ("smell",)])
def test_training_is_descent_on_the_sum_of_the_modalities_losses(held: tuple[str, ...]) -> None:
    found = run(held, lr=0.1, batch_size=50, local_epochs=3)
    network = build_network(SPEC, 0).train()
    inputs, labels = next(synthetic.client(n=50).batches(50, ALL))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.0)
    told = synthetic.settings()
    for group in optimizer.param_groups:
        group |= {"momentum": told.momentum, "weight_decay": told.weight_decay}
    for _ in range(3):
        losses = []
        for m in held:
            logits = network.encode(m, inputs[m]) @ network.head.weight[m].T + network.head.bias
            losses.append(F.cross_entropy(logits, labels))
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    expected = network.state_dict()
    for name, value in found.arrays.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("held", [ALL, ("smell",)])
def test_clients_trained_together(held: tuple[str, ...]) -> None:
    told = settings(objective="separate", objective_settings={"head_lr": 0.1})
    assert_alike(told, tasks(told, held), clients())


def test_a_head_without_columns_is_refused() -> None:
    spec = synthetic.spec("mlp").__class__(**{**vars(SPEC), "head": "cosine"})
    task = Task(Orders("train", ALL, 1, "c"), initial(spec))
    told = synthetic.settings(
        network=spec, objective="separate", objective_settings={"head_lr": 0.0}
    )
    with pytest.raises(ValueError, match="MFedMC needs the head 'linear', not 'cosine'"):
        run_task(task, synthetic.client("c"), told)


# --- a head of the client's own -----------------------------------------------------------------


def test_an_own_head_leaves_the_training_alone() -> None:
    plain, own = run(local_epochs=2), run(local_epochs=2, head_lr=0.1)
    assert {n: v.tobytes() for n, v in plain.arrays.items()} == {
        n: v.tobytes() for n, v in own.arrays.items()
    }
    fitted = {n for n in own.measurements if n.startswith("own.")}
    assert fitted == {"own.head.bias", *(f"own.head.weight.{m}" for m in ALL)}
    assert set(own.measurements) - fitted == set(plain.measurements)


@pytest.mark.parametrize("held", [ALL, ("touch", "smell")])
def test_an_own_head_is_one_epoch_on_the_features_of_the_received_encoders(
    held: tuple[str, ...],
) -> None:
    """In one batch: a step along the gradient by hand, softmax minus labels."""
    sent = run(held, head_lr=0.2, batch_size=50, momentum=0.0, weight_decay=0.0).measurements
    network = build_network(SPEC, 0).eval()
    inputs, labels = next(synthetic.client(n=50).batches(50, ALL))
    bias = network.head.bias.detach()
    bias_step = torch.zeros_like(bias)
    for m in held:
        z, w = network.encode(m, inputs[m]).detach(), network.head.weight[m].detach()
        error = torch.softmax(z @ w.T + bias, dim=1) - F.one_hot(labels, synthetic.CLASSES)
        expected = w - 0.2 * error.T @ z / 50
        np.testing.assert_allclose(sent[f"own.head.weight.{m}"], expected, rtol=1e-4, atol=1e-6)
        bias_step += error.mean(dim=0)
    np.testing.assert_allclose(sent["own.head.bias"], bias - 0.2 * bias_step, rtol=1e-4, atol=1e-6)
