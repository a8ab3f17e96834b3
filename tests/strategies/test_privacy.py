"""Client-level differential privacy: what one client can change, and how much noise covers it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from server_app.privacy import epsilon
from strategies import (
    AGM,
    Arrays,
    BMSFed,
    ClientInfo,
    DivFL,
    FedAvg,
    FedMSplit,
    FedNH,
    FedPAC,
    LocalTraining,
    MFedMC,
    ModalityDropout,
    ModalityStrategy,
    PowerOfChoice,
    Prototypes,
    RandomModality,
    ServerState,
    Update,
)
from strategies.privacy import QUANTITIES, Budget, ClientPrivacy, releases

MODEL: Arrays = {
    "encoders.a.w": np.zeros(3, np.float32),
    "encoders.a.bn.running_var": np.ones(1, np.float32),
    "encoders.a.bn.num_batches_tracked": np.array(3),
    "encoders.b.w": np.zeros(2, np.float32),
    "head.bias": np.zeros(2, np.float32),
}
NOTHING = Budget(clip=1.0, noise=0.0)


def update(name: str, value: float, *modalities: str) -> Update:
    held = modalities or ("a", "b")
    arrays = {
        n: v + np.asarray(value, v.dtype)
        for n, v in MODEL.items()
        if not n.startswith("encoders.") or n.split(".")[1] in held
    }
    return Update(name, held, 7, arrays)


def privacy(budget: Budget = NOTHING, seed: int = 0, *, measuring: bool = True) -> ClientPrivacy:
    return ClientPrivacy(budget, measuring=measuring, rng=np.random.default_rng(seed))


def change(new: Arrays, old: Arrays = MODEL) -> np.ndarray[Any, Any]:
    floats = [n for n, v in old.items() if v.dtype == np.float32]
    return np.concatenate([new[n].ravel() - old[n].ravel() for n in floats]).astype(float)


def test_an_update_is_clipped_as_a_whole() -> None:
    """Eight numbers that each moved by 100, and three that did: both have norm 1 afterwards."""
    new = privacy().average(MODEL, [update("x", 100.0)])
    assert np.linalg.norm(change(new)) == pytest.approx(1.0)
    np.testing.assert_allclose(change(new), 1 / math.sqrt(8), rtol=1e-6)
    alone = privacy().average(MODEL, [update("x", 100.0, "b")])
    assert np.linalg.norm(change(alone)) == pytest.approx(1.0)
    np.testing.assert_allclose(alone["encoders.b.w"], 0.5, rtol=1e-6)
    small = privacy().average(MODEL, [update("x", 0.01)])
    np.testing.assert_allclose(change(small), 0.01, rtol=1e-5)


def test_an_update_of_norm_0_is_no_division_by_zero() -> None:
    with np.errstate(all="raise"):
        new = privacy().average(MODEL, [update("x", 0.0), update("y", 0.0)])
    assert not change(new).any()


def test_counters_stay_and_variances_stay_above_0() -> None:
    new = privacy(Budget(1.0, 100.0)).average(MODEL, [update("x", 1.0)])
    assert new["encoders.a.bn.num_batches_tracked"] == 3, "it tells how many batches a client has"
    lowest = min(
        privacy(Budget(1.0, 100.0), s).average(MODEL, [update("x", 0.0)])[
            "encoders.a.bn.running_var"
        ][0]
        for s in range(20)
    )
    assert lowest == pytest.approx(1e-3)


def test_clients_weigh_the_same_whatever_samples_they_claim() -> None:
    one, other = update("x", 0.1), update("y", 0.3)
    other.num_samples = 10**15
    new = privacy().average(MODEL, [one, other])
    np.testing.assert_allclose(change(new), 0.2, rtol=1e-5)


@pytest.mark.parametrize("poisson", [False, True])
def test_one_client_moves_the_sums_by_its_clip_at_most(poisson: bool) -> None:
    """Neighbours: all that client x sends is zero. In units of each part's denominator."""
    rng = np.random.default_rng(5)
    clients = [ClientInfo(n, ("a", "b")) for n in "xyz"] + [ClientInfo("w", ("b",))]
    held = {c.client_id: c.modalities for c in clients}
    for trial in range(50):
        updates = [
            update(n, float(rng.normal(scale=10.0 ** rng.integers(-3, 4))), *m)
            for n, m in held.items()
        ]
        zeroed = [update("x", 0.0), *updates[1:]]
        averaged = []
        for answers in (updates, zeroed):
            one = privacy(seed=trial, measuring=not poisson)
            if poisson:
                one.draw(clients, 2)
                share = one._draw.share if one._draw else 1.0
                number = {"a": max(share * 3, 1), "b": share * 4, "": share * 4}
            else:
                number = {"a": 3.0, "b": 4.0, "": 4.0}
            new = one.average({n: v.astype(float) for n, v in MODEL.items()}, answers)
            parts = {n: n.split(".")[1] if n.startswith("encoders") else "" for n in MODEL}
            averaged.append({n: (new[n] - MODEL[n]) * number[parts[n]] for n in MODEL})
        gaps = [averaged[0][n] - averaged[1][n] for n in MODEL if "tracked" not in n]
        moved = np.linalg.norm(np.concatenate([g.ravel() for g in gaps]))
        # A variance that is held above its least value moves less.
        assert moved <= 1.0 + 1e-9


def test_noise_has_the_standard_deviation_that_is_accounted_for() -> None:
    model = {"head.bias": np.zeros(200_000)}
    answers = [Update(n, (), arrays={"head.bias": np.zeros(200_000)}) for n in "xyzw"]
    alone = privacy(Budget(clip=0.5, noise=3.0), measuring=False)
    new = alone.average(model, answers)["head.bias"]
    assert new.std() * 4 == pytest.approx(3.0 * 0.5, rel=0.01)
    shared = privacy(Budget(clip=0.5, noise=3.0))  # a quarter of the budget
    new = shared.average(model, answers)["head.bias"]
    assert new.std() * 4 == pytest.approx(3.0 * 0.5 * 2, rel=0.01)


def test_all_quantities_together_cost_what_one_release_does() -> None:
    shares = {"update": 5.0, "prototypes": 1.0, "scores": 2.0, "signatures": 2.0}
    one = privacy(Budget(1.0, 1.3, shares=shares))
    assert one.multiplier("update") == pytest.approx(1.3 / math.sqrt(0.5))
    assert sum(one.multiplier(q) ** -2 for q in QUANTITIES) == pytest.approx(1.3**-2)


def measured(value: float = 1.0) -> Update:
    means = np.full((4, 5), value, np.float32)
    return Update(
        "x",
        ("a", "b"),
        10,
        prototypes={m: Prototypes(means, np.array([3, 0, 9, 1])) for m in "ab"},
        scores={"a": 8.0, "b": 2.0},
        ratios={"a": 1.0, "b": 4.0},
        signatures={"multi": np.full(6, value, np.float32), "enhance.a": np.ones(6, np.float32)},
        metrics={"loss": 0.3},
        present={"b": 7},
    )


def test_measurements_are_clipped_jointly_and_counts_do_not_leave() -> None:
    kept = privacy().measured(measured(1e6))
    rows = np.stack([kept.prototypes[m].means for m in "ab"])
    assert np.linalg.norm(rows) == pytest.approx(10.0)
    assert not rows[:, 1].any(), "a class that the client has not got is a zero like any other"
    assert all(p.counts.tolist() == [1, 1, 1, 1] for p in kept.prototypes.values())
    assert np.linalg.norm(np.stack([*kept.signatures.values()])) == pytest.approx(1.0)
    assert kept.scores == pytest.approx({"a": 0.8, "b": 0.2})
    assert kept.ratios == pytest.approx({"a": 1.0, "b": 4.0}), "those of the scores"
    assert (kept.num_samples, kept.metrics, kept.arrays, kept.measurements) == (1, {}, {}, {})
    assert kept.present == {}


def test_every_measurement_has_its_noise() -> None:
    """Each kind by its own clip; a score per modality is at most 1."""
    budget = Budget(1.0, 2.0, prototypes_clip=3.0, signatures_clip=0.5)
    draws = [privacy(budget, seed).measured(measured(0.0)) for seed in range(400)]
    quarter = 2.0 * 2
    for m in "ab":
        spread = np.stack([d.prototypes[m].means for d in draws]).std()
        assert spread == pytest.approx(quarter * 3.0, rel=0.05)
    multi = np.stack([d.signatures["multi"] for d in draws])
    assert multi.std() == pytest.approx(quarter * 0.5, rel=0.1)
    scores = np.array([d.scores["a"] for d in draws])
    wide = quarter * math.sqrt(2)
    low = norm.cdf((0.01 - 0.8) / wide)
    assert (scores == 0.01).mean() == pytest.approx(low, abs=0.1)
    assert scores.min() == 0.01
    assert scores.max() == 1.0


def test_of_averages_alone_nothing_measured_is_kept() -> None:
    strategy = FedAvg(2, seed=0)
    strategy.start_from(dict(MODEL))
    strategy.protect(NOTHING)
    answer = update("x", 0.1)
    answer.prototypes, answer.scores = measured().prototypes, {"a": 1.0}
    strategy.configure_fit(1, [ClientInfo("x", ("a", "b"))])
    strategy.aggregate_fit(1, [answer])
    assert not any(strategy.state.prototypes.values())
    assert not any(strategy.state.scores.values())


def test_poisson_draws_each_client_by_itself() -> None:
    clients = [ClientInfo(f"c{i}", ("a",)) for i in range(20)]
    one = privacy(measuring=False)
    sizes = np.array([len(one.draw(clients, 5)) for _ in range(4000)])
    assert sizes.mean() == pytest.approx(5.0, abs=0.1)
    assert sizes.var() == pytest.approx(20 * 0.25 * 0.75, rel=0.1), "binomial, not a fixed number"


def test_where_nobody_is_drawn_one_trains_in_vain() -> None:
    clients = [ClientInfo("x", ("a", "b")), ClientInfo("y", ("a", "b"))]
    one = privacy(measuring=False)
    for _ in range(100):
        [trains, *_] = one.draw(clients, 0.02)  # type: ignore[arg-type]
        if one._draw is not None and not one._draw.members:
            break
    new = one.average(MODEL, [update(trains.client_id, 5.0)])
    assert not change(new).any(), "there is noise alone, and none was asked for"


def test_with_a_secret_draw_parts_that_nobody_trained_are_noised_too() -> None:
    clients = [ClientInfo(n, ("a", "b") if n == "x" else ("b",)) for n in "xyzw"]
    one = privacy(Budget(1.0, 1.0), measuring=False)
    one.draw(clients, 3)
    new = one.average(MODEL, [update("y", 0.1, "b")], frozen={"head.bias"})
    assert new["encoders.a.w"].all(), "an array as it was would tell that x was not drawn"
    np.testing.assert_array_equal(new["head.bias"], MODEL["head.bias"])


def test_what_is_released_is_kept_with_the_state_and_charged_again_on_resuming() -> None:
    def after(rounds: int, state: ServerState | None = None) -> BMSFed:
        strategy = BMSFed(1, seed=0)
        strategy.protect(Budget(1.0, 2.0), np.random.default_rng(0))
        strategy.start_from(state or dict(MODEL))
        if state is None:
            strategy.aggregate_probe(1, [measured()])
        for number in range(strategy.state.round + 1, rounds + 1):
            strategy.aggregate_fit(number, [update("x", 0.1)])
        return strategy

    whole = after(2)
    probe = (3 / 4 / 2.0**2) ** -0.5
    np.testing.assert_allclose(releases(whole.state), [[1, probe], [1, 2], [1, 2]])
    whole.aggregate_probe(3, [measured()])  # somebody came late; nobody is measured twice
    assert len(releases(whole.state)) == 3
    again = after(3, ServerState.from_bytes(whole.state.to_bytes()))
    np.testing.assert_allclose(releases(again.state)[:, 1], [probe, 2, 2, 2, 2])


def test_sampling_is_claimed_for_a_poisson_draw_alone() -> None:
    clients = [ClientInfo(f"c{i}", ("a", "b")) for i in range(10)]
    averaging, sharing = FedAvg(3), FedAvg(3, share_prototypes=True)
    for strategy, rate in ((averaging, 0.3), (sharing, 1.0)):
        strategy.start_from(dict(MODEL))
        strategy.protect(Budget(1.0, 2.0))
        chosen = strategy.configure_fit(1, clients)
        strategy.aggregate_fit(1, [update(a.client_id, 0.1) for a in chosen])
        assert releases(strategy.state).tolist() == [[rate, 2.0]]
    assert len(sharing.configure_fit(2, clients)) == 3


@pytest.mark.parametrize(
    "make",
    [
        *(lambda cls=cls: cls(2) for cls in (AGM, DivFL, FedMSplit, FedNH, FedPAC, MFedMC)),
        *(lambda cls=cls: cls(2) for cls in (LocalTraining, PowerOfChoice)),
        lambda: ModalityDropout(2, drop=0.5),
        lambda: type("Mine", (FedAvg,), {})(2),
    ],
)
def test_methods_whose_releases_are_not_accounted_for_are_refused(
    make: Callable[[], ModalityStrategy],
) -> None:
    with pytest.raises(ValueError, match=r"no differential privacy for \w+: .* take FedAvg, BMSF"):
        make().protect(NOTHING)


def test_averages_over_all_are_refused() -> None:
    with pytest.raises(ValueError, match="head_columns='all'"):
        FedAvg(2, head_columns="all").protect(NOTHING)
    RandomModality(2).protect(NOTHING)


# --- the accountant ------------------------------------------------------------------------------


def exact_delta(eps: float, z: float) -> float:
    """Delta of one Gaussian release with noise multiplier z (Balle and Wang, ICML 2018, Thm. 8)."""
    return float(norm.cdf(0.5 / z - eps * z) - math.exp(eps) * norm.cdf(-0.5 / z - eps * z))


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0, 20.0])
def test_one_release_is_bounded_as_closely_as_renyi_divergence_can(noise: float) -> None:
    found = epsilon(np.array([[1.0, noise]]), 1e-5)
    assert exact_delta(found, noise) <= 1e-5, "a bound from above"
    assert exact_delta(found / 1.35, noise) > 1e-5, "and not a loose one"


def test_many_releases_cost_what_one_with_the_root_of_their_number_does() -> None:
    many = epsilon(np.tile([1.0, 5.0], (25, 1)), 1e-5)
    assert many == pytest.approx(epsilon(np.array([[1.0, 1.0]]), 1e-5), rel=1e-9)
    mixed = np.array([[1.0, 1.0], [1.0, 2.0]])
    alone = (1 + 1 / 4) ** -0.5
    assert epsilon(mixed, 1e-5) == pytest.approx(epsilon(np.array([[1.0, alone]]), 1e-5))


@pytest.mark.parametrize(
    ("noise", "epochs", "published"), [(1.1, 60, 3.01), (1.3, 15, 1.19), (0.7, 45, 7.10)]
)
def test_the_accountant_gives_tensorflow_privacys_figures(
    noise: float, epochs: int, published: float
) -> None:
    """Its MNIST tutorial: 60,000 samples, batches of 256, delta 1e-5.

    Published by the older conversion, ``rdp + log(1/delta) / (order - 1)``; the one in use (Balle
    et al., AISTATS 2020) gives less by the same divergences.
    """
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    steps, rate = epochs * 60_000 // 256, 256 / 60_000
    orders = np.array(RDPAccountant.DEFAULT_ALPHAS)
    rdp = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    old = float((np.asarray(rdp) + math.log(1e5) / (orders - 1)).min())
    assert old == pytest.approx(published, abs=0.005)
    found = epsilon(np.tile([rate, noise], (steps, 1)), 1e-5)
    assert 0.75 * published < found < published


def test_nothing_released_and_nothing_noised() -> None:
    assert epsilon(np.zeros((0, 2)), 1e-5) == 0
    assert epsilon(np.array([[0.5, 1.0], [0.5, 0.0]]), 1e-5) == math.inf
