"""Averaging against a direct per-part loop, and what must not move."""

import tracemalloc

import numpy as np
import pytest

from strategies import Update, aggregate_parts, weighted_mean

RNG = np.random.default_rng(0)


def model() -> dict[str, np.ndarray]:
    draw = lambda *shape: RNG.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "encoders.a.weight": draw(3, 2),
        "encoders.a.steps": np.array(3),
        "encoders.b.weight": draw(4),
        "head.weight.a": draw(2, 3),
        "head.weight.b": draw(2, 4),
        "head.bias": draw(2),
    }


def trained(client: str, modalities: tuple[str, ...], samples: int) -> Update:
    wanted = {"head.bias"} | {f"head.weight.{m}" for m in modalities}
    arrays = {
        name: value
        for name, value in model().items()
        if name in wanted or (name.startswith("encoders.") and name.split(".")[1] in modalities)
    }
    return Update(client, modalities, samples, arrays)


def direct_mean(name: str, updates: list[Update]) -> np.ndarray:
    """A plain float64 loop over those that sent the array."""
    there = [u for u in updates if name in u.arrays]
    total = sum(u.num_samples for u in there)
    result = np.zeros(there[0].arrays[name].shape)
    for u in there:
        result = result + u.arrays[name].astype(np.float64) * (u.num_samples / total)
    return result


def test_every_part_is_averaged_over_its_trainers_only() -> None:
    current = model()
    updates = [trained("k1", ("a", "b"), 10), trained("k2", ("b",), 30), trained("k3", ("b",), 5)]
    new = aggregate_parts(current, updates)
    for name in ("encoders.b.weight", "head.weight.b", "head.bias"):
        np.testing.assert_allclose(new[name], direct_mean(name, updates), rtol=1e-6)
        assert new[name].dtype == np.float32
    # Only k1 trained modality a: its weights come back bit for bit, head columns included.
    for name in ("encoders.a.weight", "head.weight.a"):
        np.testing.assert_array_equal(new[name], updates[0].arrays[name])


def test_a_part_that_nobody_trained_stays_bit_for_bit() -> None:
    current = model()
    for head_columns in ("own", "all"):
        new = aggregate_parts(current, [trained("k", ("b",), 7)], head_columns)
        for name in ("encoders.a.weight", "encoders.a.steps", "head.weight.a"):
            assert new[name].tobytes() == current[name].tobytes()


def test_all_head_columns_count_the_untrained_ones_as_sent() -> None:
    current = model()
    updates = [trained("k1", ("a", "b"), 1), trained("k2", ("b",), 3)]
    new = aggregate_parts(current, updates, "all")
    expected = 0.25 * updates[0].arrays["head.weight.a"] + 0.75 * current["head.weight.a"]
    np.testing.assert_allclose(new["head.weight.a"], expected, rtol=1e-6)
    np.testing.assert_array_equal(new["encoders.a.weight"], updates[0].arrays["encoders.a.weight"])


def plain_mean(values: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Whole arrays at once, in float64."""
    result = np.zeros(values[0].shape)
    for value, weight in zip(values, weights, strict=True):
        result += np.multiply(value, weight / sum(weights), dtype=np.float64)
    return result.astype(values[0].dtype)


@pytest.mark.parametrize("shape", [(), (0,), (3, 2), (2, 65536), (257, 511)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_blocks_give_the_bits_of_whole_arrays(shape: tuple[int, ...], dtype: type) -> None:
    weights = [3.0, 0.7, 11.0]
    values = [np.asarray(RNG.normal(size=shape) * 10.0 ** RNG.integers(-4, 4)) for _ in weights]
    values = [v.astype(dtype) for v in values]
    values[1] = np.array(values[1], order="F")
    for value in values:
        value.flags.writeable = False  # it may be a view of memory that others read
    mean, expected = weighted_mean(values, weights), plain_mean(values, weights)
    assert (mean.dtype, mean.shape) == (expected.dtype, expected.shape)
    assert mean.tobytes() == expected.tobytes()


def test_a_mean_of_large_arrays_needs_little_more_memory_than_its_result() -> None:
    values = [np.full(4 << 20, value, np.float32) for value in (1.0, 2.0, 6.0)]
    tracemalloc.start()
    mean = weighted_mean(values, [1, 1, 2])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (mean == 3.75).all()
    assert peak < mean.nbytes + 4 * 2**20


def test_order_of_replies_does_not_change_a_bit() -> None:
    current = model()
    updates = [trained(f"k{i}", ("a", "b"), int(RNG.integers(1, 99))) for i in range(9)]
    one = aggregate_parts(current, updates)
    other = aggregate_parts(current, updates[::-1])
    assert all(one[n].tobytes() == other[n].tobytes() for n in one)


def test_integers_take_the_maximum_and_zero_weights_count_for_nothing() -> None:
    assert weighted_mean([np.array(3), np.array(9)], [1, 1]) == 9
    current = model()
    idle, busy = trained("k1", ("a",), 0), trained("k2", ("a",), 2)
    new = aggregate_parts(current, [idle, busy])
    np.testing.assert_array_equal(new["encoders.a.weight"], busy.arrays["encoders.a.weight"])
    unchanged = aggregate_parts(current, [idle])
    np.testing.assert_array_equal(unchanged["encoders.a.weight"], current["encoders.a.weight"])
    with pytest.raises(ValueError, match="sum to 0"):
        weighted_mean([np.ones(2, np.float32)], [0.0])
