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


def test_holm_is_the_step_down_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_values_share_ranks_and_who_lacks_a_column_has_none() -> None:
    table = {"a": [3.0, 1.0], "b": [3.0, 2.0], "c": [1.0, 0.5], "d": [9.0, None]}
    assert mean_ranks(table) == {"a": 1.75, "b": 1.25, "c": 3.0}
    assert mean_ranks({"a": [None]}) == {}
