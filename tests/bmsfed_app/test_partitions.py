"""Partitions: every sample once, by seed, as even or skewed as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bmsfed_app.partitions import Indices, PartitionError, class_counts, partition, subsample

steady = settings(derandomize=True, deadline=None, max_examples=60)
LABELS = np.arange(5000) % 10


def skew(parts: list[Indices], labels: NDArray[np.int64]) -> float:
    """Mean over classes of the largest client's share of the class."""
    counts = class_counts(labels, parts, 10)
    return float((counts.max(axis=0) / counts.sum(axis=0)).mean())


@steady
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array),
    num_clients=st.integers(1, 8),
    scheme=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.sampled_from([0.01, 0.5, 2.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
    min_samples=st.integers(1, 4),
)
def test_every_sample_has_one_client(
    labels: NDArray[np.int64],
    num_clients: int,
    scheme: str,
    alpha: float,
    seed: int,
    min_samples: int,
) -> None:
    def divide() -> list[Indices]:
        return partition(
            labels, num_clients, scheme, alpha=alpha, seed=seed, min_samples=min_samples
        )

    try:
        parts = divide()
    except PartitionError:
        assert scheme == "dirichlet" or num_clients * min_samples > len(labels)
        return
    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(map(len, parts)) >= min_samples
    assert all(np.all(np.diff(part) > 0) for part in parts)
    assert all(part.dtype == np.int64 for part in parts)
    if scheme == "iid":
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(parts, divide(), strict=True))


def test_golden_indices() -> None:
    labels = np.arange(12) % 3
    parts = partition(labels, 3, "iid", seed=0)
    assert [p.tolist() for p in parts] == [[0, 2, 5, 8], [1, 6, 10, 11], [3, 4, 7, 9]]
    parts = partition(labels, 3, "dirichlet", alpha=1.0, seed=0)
    assert [p.tolist() for p in parts] == [[0, 8, 11], [1, 3, 6, 9, 10], [2, 4, 5, 7]]
    assert subsample(labels, 0.5, 0).tolist() == [0, 1, 2, 4, 9, 11]


def test_seeds_differ() -> None:
    for scheme in ("iid", "dirichlet"):
        one, two = (partition(LABELS, 5, scheme, seed=seed) for seed in (1, 2))
        assert not all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_iid_classes_are_spread_evenly() -> None:
    counts = class_counts(LABELS, partition(LABELS, 10, "iid", seed=3), 10)
    assert counts.shape == (10, 10)
    assert counts.sum() == 5000
    # Hypergeometric: mean 50, standard deviation 6.4.
    assert 50 - 5 * 6.4 < counts.min() <= counts.max() < 50 + 5 * 6.4


def test_dirichlet_shares_have_their_moments() -> None:
    # p ~ Dir(alpha, ..., alpha) over N: mean 1/N, variance (1/N)(1 - 1/N) / (N alpha + 1).
    n, alpha = 5, 1.0
    shares = np.concatenate(
        [
            class_counts(LABELS, partition(LABELS, n, "dirichlet", alpha=alpha, seed=s), 10).T / 500
            for s in range(60)
        ]
    )
    assert shares.mean(axis=0) == pytest.approx(np.full(n, 1 / n), abs=0.03)
    assert shares.var() == pytest.approx((1 / n) * (1 - 1 / n) / (n * alpha + 1), rel=0.1)


def test_smaller_alpha_is_more_skewed() -> None:
    skews = [
        skew(partition(LABELS, 10, "dirichlet", alpha=alpha, seed=0), LABELS)
        for alpha in (0.1, 1.0, 10.0, 1e6)
    ]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.5
    assert skews[-1] == pytest.approx(0.1, abs=0.005)


def test_poor_draws_are_drawn_anew() -> None:
    labels = np.zeros(60, dtype=np.int64)
    smallest = [
        min(map(len, partition(labels, 6, "dirichlet", alpha=1.0, seed=s, min_samples=m)))
        for m in (1, 4)
        for s in range(20)
    ]
    assert min(smallest[:20]) < 4 <= min(smallest[20:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha: a finite number above 0, not 0.0"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"num_clients": 0}, "clients: at least 1, not 0"),
        ({"min_samples": 0}, "min_samples: at least 1, not 0"),
        ({"num_clients": 41}, "40 samples cannot give 41 clients 1 each: have fewer clients"),
        ({"min_samples": 9}, "40 samples cannot give 5 clients 9 each"),
        ({"scheme": "dirichet"}, "unknown partition 'dirichet'; did you mean 'dirichlet'"),
        (
            {"alpha": 0.001, "min_samples": 8},
            r"none of 100 Dirichlet draws gave each of 5 clients 8 of 40 samples: raise alpha",
        ),
    ],
)
def test_impossible_partitions_are_refused(change: dict[str, Any], message: str) -> None:
    wanted: dict[str, Any] = {
        "num_clients": 5,
        "scheme": "dirichlet",
        "alpha": 1.0,
        "seed": 0,
    } | change
    with pytest.raises(PartitionError, match=message):
        partition(np.arange(40) % 4, **wanted)


def test_class_counts_by_hand() -> None:
    labels = np.array([0, 2, 2, 1, 0])
    parts = [np.array([0, 1, 2]), np.array([3, 4])]
    assert class_counts(labels, parts, 4).tolist() == [[1, 0, 2, 0], [1, 1, 0, 0]]


def test_subsample_is_stratified_and_nested() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    fifth = subsample(labels, 0.2, 0)
    assert np.bincount(labels[fifth]).tolist() == [20, 10, 1]
    assert np.all(np.diff(fifth) > 0)
    assert fifth.dtype == np.int64
    assert set(fifth) < set(subsample(labels, 0.5, 0))
    assert np.array_equal(fifth, subsample(labels, 0.2, 0))
    assert not np.array_equal(fifth, subsample(labels, 0.2, 1))
    assert np.array_equal(subsample(labels, 1.0, 0), np.arange(153))
    assert len(subsample(labels, 1e-9, 0)) == 3


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(PartitionError, match="data_fraction: a share above 0, to 1"):
        subsample(LABELS, fraction, 0)
