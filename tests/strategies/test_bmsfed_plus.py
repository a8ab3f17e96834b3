"""bmsfed-plus at the server: which modality is the weak one, and whether it is trusted."""

import numpy as np
import pytest

from strategies import Assignment, BMSFedPlus, ClientInfo, ServerState, Update

ARRAYS = {"encoders.a.w": np.zeros(1), "encoders.b.w": np.zeros(1), "head.bias": np.zeros(1)}
BOTH = ("a", "b")


def probed(strategy: BMSFedPlus, count: int = 6) -> list[ClientInfo]:
    clients = [ClientInfo(f"k{i}", BOTH, 10) for i in range(count)]
    strategy.state = ServerState(arrays=dict(ARRAYS))
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(count, 3)) for name in ("multi", "enhance.a", "enhance.b")}
    strategy.aggregate_probe(
        1,
        [
            Update(
                c.client_id,
                BOTH,
                10,
                scores={"a": 8.0, "b": 4.0},
                ratios={"a": 1.0, "b": 2.0},
                signatures={n: v[i] for n, v in vectors.items()},
            )
            for i, c in enumerate(clients)
        ],
    )
    return clients


def answer(ratio_a: float, ratio_b: float, *right: float) -> list[Update]:
    """What all six clients answer; of two samples held out, so many are right through a and b."""
    counts = {
        f"counts.{m}": np.array([2, r], np.float32) for m, r in zip("ab", right, strict=False)
    }
    arrays = {n: np.ones(1) for n in ARRAYS}
    ratios = {"a": ratio_a, "b": ratio_b}
    return [
        Update(f"k{i}", BOTH, 10, dict(arrays), ratios=ratios, measurements=dict(counts))
        for i in range(6)
    ]


def rounds(strategy: BMSFedPlus, *answers: list[Update]) -> None:
    for number, updates in enumerate(answers, 1):
        strategy.aggregate_fit(number, updates)
        strategy.state.round = number
        strategy._shared = None


def test_the_weak_modality_is_the_one_that_was_behind_over_the_run() -> None:
    strategy = BMSFedPlus(4)
    probed(strategy)
    assert strategy.weak_modality() == "b"
    rounds(strategy, answer(1.0, 2.0), answer(1.05, 1.0))
    assert strategy.global_ratios() == pytest.approx({"a": 1.05, "b": 1.0})
    assert strategy.weak_modality() == "b"  # 2 is more than 1.05
    rounds(strategy, *[answer(1.5, 1.0)] * 2)
    assert strategy.weak_modality() == "a"  # 1.05 * 1.5 ** 2 is more than 2


def test_trust_is_a_share_of_the_best_and_old_counts_fade() -> None:
    strategy = BMSFedPlus(4, trust_above=0.8)
    probed(strategy)
    assert not strategy.trusts("b")  # nobody has counted yet
    rounds(strategy, answer(1.0, 2.0, 2, 1))  # 12 of 12 and 6 of 12
    assert not strategy.trusts("b")
    rounds(strategy, answer(1.0, 2.0, 2, 2))  # (3 + 12) of (6 + 12): 0.83
    assert strategy.trusts("b")
    assert strategy.trusts("a")
    rounds(strategy, answer(1.0, 2.0))  # nobody holds out any more
    assert strategy.trusts("b")
    assert BMSFedPlus(4, trust_above=0.0).trusts("b")


def test_where_nobody_held_out_a_sample_nobody_is_trusted() -> None:
    strategy = BMSFedPlus(4)
    probed(strategy)
    updates = answer(1.0, 2.0)
    for u in updates:
        u.measurements["counts.b"] = np.zeros(2, np.float32)
    rounds(strategy, updates)
    assert not strategy.trusts("b")


@pytest.mark.parametrize("trusted", [True, False])
def test_nobody_trains_a_modality_alone_that_is_not_trusted_and_clients_are_told(
    trusted: bool,
) -> None:
    strategy = BMSFedPlus(4, threshold=1.0)
    clients = probed(strategy)
    rounds(strategy, answer(1.0, 2.0, 2, 2 if trusted else 0))
    chosen = strategy.configure_fit(2, clients)
    assert len(chosen) == 4
    assert any(a.modalities == ("b",) for a in chosen) == trusted
    orders = strategy.orders(2, chosen[0], "train")
    assert orders.method_state == {"trusted": trusted}
    assert orders.weak == "b"


def test_a_saved_state_decides_alike() -> None:
    strategy, again = BMSFedPlus(4), BMSFedPlus(4)
    probed(strategy)
    rounds(strategy, answer(1.0, 2.0, 1, 2), answer(1.3, 1.0, 1, 2))
    again.state = ServerState.from_bytes(strategy.state.to_bytes())
    assert again.weak_modality() == strategy.weak_modality() == "b"
    assert again.trusts("b")
    assert not again.trusts("a")


@pytest.mark.parametrize("counts", [(2, 3), (11, 2), (-1, -2), (2, -1)])
def test_counts_that_no_samples_give_are_refused(counts: tuple[int, int]) -> None:
    strategy = BMSFedPlus(4)
    [update, *_] = answer(1.0, 2.0, 2, 2)
    assert strategy.check_update(update, "train") is None
    update.measurements["counts.b"] = np.array(counts, np.float32)
    fault = strategy.check_update(update, "train")
    assert fault == "'counts.b' are no counts of its 10 samples"


def test_what_may_come_is_declared() -> None:
    strategy = BMSFedPlus(4)
    probed(strategy)
    orders = strategy.orders(1, Assignment("k0", ("b",), {"weak": "b"}), "train")
    assert strategy.expected_measurements(orders) == {"counts.b": (2,)}


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="trust_above"):
        BMSFedPlus(4, trust_above=value)
