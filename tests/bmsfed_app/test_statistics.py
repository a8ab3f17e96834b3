"""What is said of methods on the same seeds, against hand-computed values and scipy."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from bmsfed_app.report.statistics import (
    holm,
    mean_and_interval,
    mean_ranks,
    paired,
    sign_flip,
)


def test_the_interval_is_students() -> None:
    values = [61.0, 64.5, 59.5, 63.0, 62.0]
    mean, half = mean_and_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    mean, half = mean_and_interval([5.0])
    assert mean == 5.0
    assert math.isnan(half)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # none of eight sums but +6 and -6 is as large
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2 / 32),
        ([3.0, -1.0], 1.0),  # sums 4, 2, -2, -4: all are at least 2
        ([1.0, 1.0, -1.0], 1.0),
        ([2.0], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
    ],
)
def test_the_sign_flip_test_is_exact(differences: list[float], p: float) -> None:
    assert sign_flip(differences) == pytest.approx(p)


def test_the_sign_flip_test_is_that_of_a_loop() -> None:
    values = np.random.default_rng(3).normal(0.4, 1.0, size=9)
    sums = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=9)]
    expected = np.mean([s >= abs(values.sum()) - 1e-12 for s in sums])
    assert sign_flip(list(values)) == pytest.approx(expected)


def test_differences_are_of_the_seeds_that_both_have() -> None:
    found = paired({0: 60.0, 1: 62.0, 2: 65.0}, {1: 61.0, 2: 60.0, 3: 1.0})
    assert found is not None
    assert (found.mean, found.n, found.p) == (3.0, 2, 0.5)
    half = stats.t.ppf(0.975, 1) * np.std([1.0, 5.0], ddof=1) / np.sqrt(2)
    assert found.half == pytest.approx(half)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("diverged", [math.nan, math.inf, -math.inf])
def test_of_differences_that_are_not_finite_there_is_no_test(diverged: float) -> None:
    assert math.isnan(sign_flip([0.1, 0.2, diverged]))
    assert math.isnan(sign_flip([diverged]))
    found = paired({0: 1.0, 1: diverged, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 1.0})
    assert found is not None
    assert found[:4] == pytest.approx((diverged, math.nan, math.nan, 3), nan_ok=True)
    both = paired({0: diverged, 1: 1.0}, {0: diverged, 1: 0.5})
    assert both is not None
    assert math.isnan(both.mean)
    assert math.isnan(both.p)


def test_a_mean_of_infinities_of_both_signs_is_none() -> None:
    assert all(map(math.isnan, mean_and_interval([math.inf, -math.inf, 1.0])))


def test_holm_is_the_step_down_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_values_share_ranks_and_who_lacks_a_column_has_none() -> None:
    table = {"a": [3.0, 1.0], "b": [3.0, 2.0], "c": [1.0, 0.5], "d": [9.0, None]}
    assert mean_ranks(table) == {"a": 1.75, "b": 1.25, "c": 3.0}
    assert mean_ranks({"a": [None]}) == {}


def test_values_that_are_not_finite_share_the_last_rank() -> None:
    table = {
        "a": [1.0, -2.0],
        "b": [math.nan, 3.0],
        "c": [0.0, math.inf],
        "d": [-math.inf, -math.inf],
    }
    assert mean_ranks(table) == {"a": 1.5, "b": 2.25, "c": 2.75, "d": 3.5}
