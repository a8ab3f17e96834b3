"""Rules against numpy on whole arrays and hand-computed cases, within a federation's parts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Update, aggregate_parts
from strategies.robust import Krum, Median, NormClip, Rule, TrimmedMean, merge, middle
from tests.strategies.test_aggregation import model, trained

RNG = np.random.default_rng(0)
RULES = [Median(), TrimmedMean(), NormClip(), Krum(), Krum(bad=0, m=2)]


def clients(n: int, size: int = 40_000) -> tuple[np.ndarray, list[np.ndarray]]:
    """A part as it was, larger than a block, and what n clients made of it."""
    old = RNG.normal(size=(2, size // 2)).astype(np.float32)
    return old, [old + RNG.normal(size=old.shape).astype(np.float32) for _ in range(n)]


def merged(rule: Rule, old: np.ndarray, values: list[np.ndarray], weights: list[float]) -> Any:
    [new] = merge(rule, [old], [[v] for v in values], weights)
    assert (new.dtype, new.shape) == (old.dtype, old.shape)
    return new


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_median_is_numpys(n: int) -> None:
    old, values = clients(n)
    expected = np.median(np.stack(values).astype(np.float64), axis=0).astype(np.float32)
    np.testing.assert_array_equal(merged(Median(), old, values, [1.0] * n), expected)


@pytest.mark.parametrize(
    ("n", "trim", "cut"), [(10, 0.2, 2), (5, 0.2, 1), (3, 0.2, 1), (2, 0.4, 0), (30, 0.1, 3)]
)
def test_trimmed_mean_leaves_out_both_ends_of_every_number(n: int, trim: float, cut: int) -> None:
    old, values = clients(n, 200)
    stacked = np.sort(np.stack(values).astype(np.float64), axis=0)
    expected = stacked[cut : n - cut].mean(axis=0)
    found = merged(TrimmedMean(trim=trim), old, values, [3.0] * n)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_trimmed_means_weights_go_with_their_values() -> None:
    old, values = np.zeros(1), [np.array([v]) for v in (9.0, 1.0, 2.0, 5.0, -7.0)]
    weights = [100.0, 1.0, 2.0, 1.0, 100.0]
    assert merged(TrimmedMean(), old, values, weights) == (1 * 1 + 2 * 2 + 5 * 1) / 4


@pytest.mark.parametrize("rule", [TrimmedMean(trim=0.0), NormClip(factor=1e9), Krum(bad=0)])
def test_rules_that_leave_out_nothing_are_the_weighted_mean(rule: Rule) -> None:
    current = model()
    updates = [trained(f"k{i}", ("a", "b") if i % 2 else ("a",), 3 + i) for i in range(8)]
    plain, found = (aggregate_parts(current, updates, rule=r) for r in (None, rule))
    assert list(found) == list(current)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_norm_clip_shortens_what_is_longer_than_the_median() -> None:
    old = np.array([10.0, 10.0])
    values = [np.array(v) for v in ((13.0, 10.0), (10.0, 14.0), (60.0, 10.0))]  # norms 3, 4, 50
    found = merged(NormClip(), old, values, [1.0, 1.0, 2.0])
    np.testing.assert_allclose(found, [10 + 3 / 4 + 4 * 2 / 4, 10 + 4 / 4])
    found = merged(NormClip(factor=2.0), old, values, [1.0, 1.0, 2.0])
    np.testing.assert_allclose(found, [10 + 3 / 4 + 8 * 2 / 4, 10 + 4 / 4])


def test_krum_by_hand() -> None:
    """Of 0, 1, 3, 4.5 and 100 with one bad, two nearest each: 1+9, 1+4, 2.25+4, 2.25+12.25, ..."""
    old, values = np.zeros(1), [np.array([v]) for v in (0.0, 1.0, 3.0, 4.5, 100.0)]
    weights = [1.0, 1.0, 3.0, 1.0, 99.0]
    assert merged(Krum(m=1), old, values, weights) == 1.0
    np.testing.assert_allclose(merged(Krum(m=2), old, values, weights), (1 + 3 * 3) / 4)
    np.testing.assert_allclose(merged(Krum(), old, values, weights), (0 + 1 + 9 + 4.5) / 6)


def test_krum_chooses_by_all_of_a_part_and_not_across_parts() -> None:
    current = model()
    updates = [trained(f"k{i}", ("a", "b"), 1) for i in range(5)]
    for update in updates:
        update.arrays = {n: v + 0 for n, v in current.items()}
    far = current["encoders.a.weight"] + 50
    updates[3].arrays["encoders.a.weight"] = far.astype(np.float32)
    updates[1].arrays["encoders.b.weight"] = current["encoders.b.weight"] - np.float32(50)
    new = aggregate_parts(current, updates, rule=Krum(m=4))
    for name in current:
        np.testing.assert_allclose(new[name], current[name], rtol=1e-6)


def test_krum_of_too_few_takes_the_median_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, values = clients(4, 200)
    krum = Krum(bad=1)
    for _ in range(2):
        found = merged(krum, old, values, [1.0] * 4)
        np.testing.assert_array_equal(found, merged(Median(), old, values, [1.0] * 4))
    assert caplog.text.count("krum needs 5 trainers of a part to bear 1 bad ones") == 1


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_who_is_who_does_not_matter(rule: Rule, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 7))
    numbers = st.floats(-100, 100, width=32)
    rows = data.draw(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=n, max_size=n))
    weights = data.draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    values = [np.array(row) for row in rows]
    one = merged(rule, np.zeros(3), values, weights)
    assert (one >= np.min(values, axis=0).clip(max=0) - 1e-9).all()
    assert (one <= np.max(values, axis=0).clip(min=0) + 1e-9).all()
    if isinstance(rule, TrimmedMean) and len({x for row in rows for x in row}) < 3 * n:
        return  # of equal numbers the first are left out, with their weights
    other = merged(rule, np.zeros(3), [values[i] for i in order], [weights[i] for i in order])
    if not isinstance(rule, Krum):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


def test_rules_bear_what_overflows() -> None:
    old, values = clients(7, 200)
    values[2] = np.full_like(old, np.finfo(np.float32).max)
    for rule in RULES[:4]:
        assert np.abs(merged(rule, old, values, [1.0] * 7)).max() < 20


def test_counters_take_the_median_under_a_rule() -> None:
    assert middle([np.array(v) for v in (3, 9, 4)]) == 4
    updates = [
        Update(f"k{i}", ("a",), 1, {"encoders.a.steps": np.array(v)})
        for i, v in enumerate((3, 2**62, 4))
    ]
    assert aggregate_parts(model(), updates, rule=Median())["encoders.a.steps"] == 4


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TrimmedMean(trim=0.5), "trim is 0.5, it must be >= 0 and < 0.5"),
        (lambda: NormClip(factor=0), "factor is 0, it must be > 0"),
        (lambda: Krum(bad=-1), "bad is -1, it must be >= 0"),
        (lambda: Krum(m=-1), "m is -1, it must be >= 0"),
    ],
)
def test_settings_out_of_range_are_named(build: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()
