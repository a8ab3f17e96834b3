"""FedPAC's mixtures against scipy and by hand, and whole federations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bmsfed_app.methods import METHODS
from server_app.evaluation import Evaluator
from strategies import Assignment, ClientInfo, FedPAC, ServerState, Update, weighted_mean
from strategies.fedpac import mixing_weights, optimal_weights, project_to_simplex
from tests import synthetic
from tests.federation import federate, initial, whole_and_resumed
from tests.test_three_modalities import HELD

SPEC = synthetic.spec("mlp")
CLIENT = {
    "network": SPEC,
    "objective": "feature_alignment",
    "objective_settings": {"lam": 1.0, "head_lr": 0.1},
}


def test_two_clients_by_hand() -> None:
    shares = np.array([[0.0, 0.0], [np.sqrt(3.0), 0.0]])
    alpha = mixing_weights(shares, np.array([1.0, 2.0]))
    np.testing.assert_allclose(alpha[0], [5 / 6, 1 / 6], rtol=1e-9)
    np.testing.assert_allclose(alpha[1], [1 / 3, 2 / 3], rtol=1e-9)  # 4 a^2 + 2 (1 - a)^2


def test_equal_features_weigh_by_their_certainty() -> None:
    variance = np.array([0.5, 2.0, 1.0, 8.0])
    alpha = mixing_weights(np.ones((4, 6)), variance)
    expected = (1 / variance) / (1 / variance).sum()
    np.testing.assert_allclose(alpha, np.tile(expected, (4, 1)), rtol=1e-8)


def forms(shares: np.ndarray, variance: np.ndarray) -> list[np.ndarray]:
    """diag V + G_i of every client, straight from the definition."""
    n = len(variance)
    made = []
    for i in range(n):
        g = [
            [(shares[i] - shares[j]) @ (shares[i] - shares[k]) for k in range(n)] for j in range(n)
        ]
        made.append(np.diag(variance) + np.array(g))
    return made


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.03, 1.0])
def test_weights_are_the_optimum_that_scipy_finds(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    shares = 5 + spread * rng.normal(size=(n, 12))
    variance = rng.uniform(0.01, 0.3, n)
    alpha = optimal_weights(shares, variance)
    for row, form in zip(alpha, forms(shares, variance), strict=True):
        found = minimize(
            lambda a, q=form: a @ q @ a,
            np.full(n, 1 / n),
            jac=lambda a, q=form: 2 * q @ a,
            bounds=[(0, 1)] * n,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        ).x
        np.testing.assert_allclose(row, found, atol=2e-6)
        assert row @ form @ row <= found @ form @ found * (1 + 1e-10)


def test_an_optimum_without_zeros_solves_lagranges_equations() -> None:
    rng = np.random.default_rng(5)
    shares, variance = 0.05 * rng.normal(size=(5, 8)), rng.uniform(0.5, 1, 5)
    for row, form in zip(mixing_weights(shares, variance), forms(shares, variance), strict=True):
        free = np.linalg.solve(form, np.ones(5))
        np.testing.assert_allclose(row, free / free.sum(), rtol=1e-8)


def test_weights_below_a_thousandth_are_rounded_away() -> None:
    variance = np.array([1.0, 5000.0, 2.0])
    alpha = mixing_weights(np.ones((3, 2)), variance)
    np.testing.assert_allclose(alpha, np.tile([2 / 3, 0, 1 / 3], (3, 1)), atol=1e-8)


def test_many_clients_and_no_variance_are_no_trouble() -> None:
    np.testing.assert_allclose(mixing_weights(np.ones((3, 2)), np.zeros(3)), 1 / 3)
    np.testing.assert_array_equal(mixing_weights(np.ones((1, 2)), np.ones(1)), [[1.0]])
    alpha = mixing_weights(np.zeros((1200, 1)), np.ones(1200))  # each less than 1e-3
    np.testing.assert_allclose(alpha, 1 / 1200)
    apart = mixing_weights(100.0 * np.eye(3), np.full(3, 1e-3))
    np.testing.assert_allclose(apart, np.eye(3))


def test_projection_is_the_nearest_point_of_the_simplex() -> None:
    rng = np.random.default_rng(2)
    rows = 2 * rng.normal(size=(50, 6))
    found = project_to_simplex(rows)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (found >= 0).all()
    others = rng.dirichlet(np.ones(6), 200)
    nearest = np.linalg.norm(rows[:, None] - others[None], axis=2).min(axis=1)
    assert (np.linalg.norm(rows - found, axis=1) <= nearest).all()


MODEL = {
    "encoders.a.w": np.zeros(2, np.float32),
    "encoders.b.w": np.zeros(2, np.float32),
    "head.weight.a": np.zeros((2, 3), np.float32),
    "head.weight.b": np.zeros((2, 2), np.float32),
    "head.bias": np.zeros(2, np.float32),
}


def answers() -> list[Update]:
    rng = np.random.default_rng(3)
    updates = []
    for name, held in {"k0": "ab", "k1": "ab", "k2": "b", "k3": "a"}.items():
        arrays = {
            n: rng.normal(size=v.shape).astype(np.float32)
            for n, v in MODEL.items()
            if n == "head.bias" or set(n.split(".")) & set(held)
        }
        update = Update(name, tuple(held), int(rng.integers(5, 20)), arrays)
        for m in held:
            shape = MODEL[f"head.weight.{m}"].shape
            update.measurements[f"shares.{m}"] = (0.1 * rng.normal(size=shape)).astype(np.float32)
            update.measurements[f"variance.{m}"] = rng.uniform(0.05, 0.1, 1).astype(np.float32)
        updates.append(update)
    return updates


def test_heads_are_mixed_block_by_block_and_travel_at_the_next_selection() -> None:
    updates = answers()
    strategy = FedPAC()
    strategy.state = ServerState(arrays=dict(MODEL))
    strategy.aggregate_fit(1, updates[::-1])
    bias_weights = np.zeros((4, 4))
    for m, trainers in {"a": [0, 1, 3], "b": [0, 1, 2]}.items():
        shares = np.stack([updates[i].measurements[f"shares.{m}"].ravel() for i in trainers])
        variance = [float(updates[i].measurements[f"variance.{m}"][0]) for i in trainers]
        alpha = mixing_weights(shares, np.array(variance))
        assert (alpha > 0).sum() > 3  # a mixture, not everyone's own
        for row, i in enumerate(trainers):
            name = f"head.weight.{m}"
            mixed = sum(
                w * updates[j].arrays[name] for w, j in zip(alpha[row], trainers, strict=True)
            )
            task = strategy.task(2, Assignment(f"k{i}", updates[i].modalities))
            np.testing.assert_allclose(task.arrays[name], mixed, atol=1e-6)
            assert task.arrays[name].dtype == np.float32
            for w, j in zip(alpha[row], trainers, strict=True):
                bias_weights[i, j] += w / len(updates[i].modalities)
    np.testing.assert_allclose(bias_weights.sum(axis=1), 1.0)
    biases = np.stack([u.arrays["head.bias"] for u in updates])
    for i, update in enumerate(updates):
        task = strategy.task(2, Assignment(update.client_id, update.modalities))
        np.testing.assert_allclose(task.arrays["head.bias"], bias_weights[i] @ biases, atol=1e-6)


def test_the_global_head_is_the_mean_of_the_heads_that_came_in() -> None:
    updates = answers()
    strategy = FedPAC()
    strategy.state = ServerState(arrays=dict(MODEL))
    new = strategy.aggregate_fit(1, updates)
    for name in ("head.weight.a", "encoders.b.w", "head.bias"):
        there = [u for u in updates if name in u.arrays]
        mean = weighted_mean([u.arrays[name] for u in there], [u.num_samples for u in there])
        np.testing.assert_array_equal(new[name], mean)
    # A client that has no head of its own starts from the global one.
    task = strategy.task(2, Assignment("late", ("a", "b")))
    assert all(task.arrays[n] is new[n] for n in MODEL)


def test_a_client_that_is_alone_gets_its_own_head_back() -> None:
    [update, *_] = answers()
    strategy = FedPAC()
    strategy.state = ServerState(arrays=dict(MODEL))
    strategy.aggregate_fit(1, [update])
    task = strategy.task(2, Assignment("k0", ("a", "b")))
    for name, value in update.arrays.items():
        np.testing.assert_array_equal(task.arrays[name], value)


def drop(name: str) -> Callable[[Update], None]:
    def spoil(update: Update) -> None:
        del update.measurements[name]

    return spoil


def set_to(name: str, value: Any) -> Callable[[Update], None]:
    return lambda update: update.measurements.update({name: np.array(value, np.float32)})


def test_bad_answers_are_left_out_by_name() -> None:
    spoil = {
        "c0": drop("shares.touch"),
        "c1": set_to("shares.smell", np.zeros((2, 64))),
        "c3": drop("variance.smell"),
        "c4": set_to("variance.sound", [-1.0]),
        "c5": set_to("variance.touch", [np.nan]),
    }
    state, keep = federate(FedPAC(6), initial(SPEC), 1, spoil, **CLIENT)
    [report] = keep.reports
    assert report.failures == {
        "c0": "class shares of 'touch' have shape (0,), expected (3, 64)",
        "c1": "measurement 'shares.smell' has shape (2, 64), expected (3, 64)",
        "c3": "the answer holds no variance of 'smell' of 0 or more",
        "c4": "the answer holds no variance of 'sound' of 0 or more",
        "c5": "measurement 'variance.touch' is not finite",
    }
    assert set(state.memory) == {"c2"}


@pytest.mark.parametrize("encoder", ["mlp", "identity"])
def test_a_federation_of_three_modalities_goes_on_where_it_stopped(encoder: str) -> None:
    client = CLIENT | {"network": synthetic.spec(encoder)}
    start = lambda: initial(synthetic.spec(encoder))  # noqa: E731
    whole, resumed = whole_and_resumed(lambda: FedPAC(4), start, **client)
    assert whole == resumed
    state, keep = federate(FedPAC(6), start(), 3, **client)
    assert [r.failures for r in keep.reports] == [{}] * 3
    for name, held in HELD.items():
        own = state.memory[name]
        assert set(own) == {"head.bias"} | {f"head.weight.{m}" for m in held}
        assert all(np.isfinite(v).all() for v in own.values())
    evaluate = Evaluator(client["network"], synthetic.split(300, seed=99), torch.device("cpu"))
    assert evaluate(state.arrays, state.global_prototypes()).accuracy > 0.8  # at random: 0.33
    smell = [state.memory[c]["head.weight.smell"] for c in ("c0", "c3")]
    assert not np.array_equal(*smell)  # they are personal


def test_everyone_is_supported_and_the_registry_explains_it() -> None:
    assert FedPAC().unsupported(ClientInfo("k", ("a",))) is None
    settings = METHODS.find("fedpac")(lam=2.0)
    assert settings.objective() == ("feature_alignment", {"lam": 2.0, "head_lr": 0.1})
    made = settings.strategy(clients_per_round=3)
    assert isinstance(made, FedPAC)
    assert made.share_prototypes
    assert "ICLR 2023" in settings.source
