"""BMSFed's own bookkeeping: rows, ratios and prototypes that each rule keeps or refreshes."""

import numpy as np
import pytest

from strategies import BMSFed, ClientInfo, Prototypes, Update

ARRAYS = {"encoders.a.w": np.zeros(1), "encoders.b.w": np.zeros(1), "head.bias": np.zeros(1)}


def probed(strategy: BMSFed, count: int = 4) -> list[ClientInfo]:
    clients = [ClientInfo(f"k{i}", ("a", "b"), 10) for i in range(count)]
    strategy.state.arrays = dict(ARRAYS)
    strategy.aggregate_probe(
        1,
        [
            Update(
                c.client_id,
                c.modalities,
                scores={"a": 8.0, "b": 4.0},
                ratios={"a": 1.0, "b": 2.0},
                signatures={"multi": np.array([i * 1.0]), "enhance.b": np.array([-i * 1.0])},
                prototypes={"b": Prototypes(np.full((1, 1), i, np.float32), np.array([1]))},
            )
            for i, c in enumerate(clients)
        ],
    )
    return clients


def alone(client: str) -> Update:
    """What a client answers that trained ``b`` alone, and well."""
    return Update(
        client,
        ("b",),
        10,
        {"encoders.b.w": np.ones(1), "head.bias": np.ones(1)},
        {"b": Prototypes(np.full((1, 1), 9, np.float32), np.array([1]))},
        scores={"b": 16.0},
        signatures={"enhance.b": np.array([7.0])},
    )


@pytest.mark.parametrize(("rule", "ratio"), [("keep", 2.0), ("refresh", 1.0)])
def test_the_ratio_of_a_client_that_trained_alone(rule: str, ratio: float) -> None:
    strategy = BMSFed(2, uni_ratio=rule)  # type: ignore[arg-type]
    probed(strategy)
    strategy.aggregate_fit(1, [alone("k0")])
    assert strategy.state.ratios["k0"]["b"] == ratio
    assert strategy.state.ratios["k1"]["b"] == 2.0
    if rule == "refresh":
        assert strategy.state.ratios["k0"]["a"] == 2.0  # now the stronger one is the other


@pytest.mark.parametrize(("scope", "expected"), [("all", (9 + 1 + 2 + 3) / 4), ("selected", 9)])
def test_global_prototypes_come_from_all_or_from_this_round(scope: str, expected: float) -> None:
    strategy = BMSFed(2, prototype_scope=scope)  # type: ignore[arg-type]
    probed(strategy)
    strategy.aggregate_fit(1, [alone("k0")])
    assert strategy.state.global_prototypes()["b"].means[0, 0] == expected


@pytest.mark.parametrize(("cover", "row"), [("shared", 5.0), ("uni", 0.0)])
def test_who_refreshes_the_enhancing_row(cover: str, row: float) -> None:
    strategy = BMSFed(2, uni_cover=cover)  # type: ignore[arg-type]
    probed(strategy)
    both = Update("k0", ("a", "b"), 10, dict(ARRAYS), scores={"a": 1.0, "b": 1.0})
    both.signatures = {"multi": np.array([6.0]), "enhance.b": np.array([5.0])}
    strategy.aggregate_fit(1, [both, alone("k1")])
    kept = strategy.state.signatures
    assert kept["k0"]["multi"][0] == 6.0
    assert kept["k0"]["enhance.b"][0] == row
    assert kept["k1"]["enhance.b"][0] == 7.0  # uni-modal training always does
    assert kept["k1"]["multi"][0] == 1.0  # and never touches the multi-modal row


def test_tasks_carry_prototypes_and_the_weak_modality_only_after_the_probe() -> None:
    strategy = BMSFed(2, threshold=1.0)
    clients = probed(strategy)
    [first, *_] = strategy.configure_fit(1, clients)
    orders = strategy.orders(1, first, "train")
    assert (orders.weak, orders.ratio) == ("b", 2.0)
    assert orders.prototypes["b"].means[0, 0] == 1.5
    probe = strategy.orders(1, first, "measure")
    assert probe.prototypes == {}
    assert probe.weak is None


def test_clients_without_a_signature_are_not_selected() -> None:
    strategy = BMSFed(3)
    clients = [*probed(strategy, 2), ClientInfo("late", ("a", "b"), 10)]
    assert {a.client_id for a in strategy.configure_fit(1, clients)} == {"k0", "k1"}
    assert [a.client_id for a in strategy.configure_probe(2, clients)] == ["late"]
    assert BMSFed(3).configure_fit(1, clients) == []


def test_a_sampled_cover_reports_its_error() -> None:
    strategy = BMSFed(2, cover_sample=3)
    clients = probed(strategy, 6)
    assert all(a.reasons["error_multi"] >= 0 for a in strategy.configure_fit(1, clients))
    exact = BMSFed(2)
    exact.state = strategy.state
    assert "error_multi" not in exact.configure_fit(1, clients)[0].reasons


@pytest.mark.parametrize(
    "bad", [{"threshold": -1}, {"sketch_dim": -1}, {"probe_batches": 0}, {"cover_sample": 0}]
)
def test_numbers_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        BMSFed(2, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clients_per_round"):
        BMSFed(0)
