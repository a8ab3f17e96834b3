"""Count-sketch against its definition in plain integers, and its statistical promise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.selection import sketch
from strategies.selection.sketch import count_sketch


def by_hand(parts: dict[str, list[float]], dim: int, seed: int) -> list[float]:
    """The definition, with Python's integers."""
    out = [0.0] * dim
    mask = 2**64 - 1
    for name, values in parts.items():
        digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
        for i, value in enumerate(values):
            z = (int.from_bytes(digest, "little") + i * 0x9E3779B97F4A7C15) & mask
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            z ^= z >> 31
            out[((z >> 32) * dim) >> 32] += -value if z & 1 else value
    return out


def normal(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def test_exact_values_of_a_small_case() -> None:
    parts = {"image": [1.0, 2.0, 4.0, 8.0], "sound": [16.0, 32.0]}
    got = count_sketch({n: np.array(v) for n, v in parts.items()}, 3, 7)
    assert got.tolist() == by_hand(parts, 3, 7)
    # Written down: clients of different versions must keep agreeing.
    assert got.tolist() == [-8.0, 2.0, -27.0]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(max_size=5), st.lists(st.integers(-9, 9), max_size=12), max_size=3),
    st.integers(1, 9),
    st.integers(-(2**70), 2**70),
)
def test_equals_the_definition(parts: dict[str, list[int]], dim: int, seed: int) -> None:
    got = count_sketch({n: np.array(v, dtype=np.float32) for n, v in parts.items()}, dim, seed)
    assert got.dtype == np.float32
    assert got.shape == (dim,)
    assert got.tolist() == by_hand(parts, dim, seed)


@pytest.mark.parametrize("dim", [256, 1024, 4096])
@pytest.mark.parametrize("seed", range(5))
def test_distances_survive(dim: int, seed: int) -> None:
    a, b = normal(2 * seed, 20_000), normal(2 * seed + 1, 20_000)
    exact = np.linalg.norm(a - b)
    sketched = np.linalg.norm(count_sketch({"m": a}, dim, seed) - count_sketch({"m": b}, dim, seed))
    assert abs(sketched / exact - 1) < 3 * np.sqrt(2 / dim)


def test_is_linear() -> None:
    a, b = normal(0, 500), normal(1, 500)
    combined = count_sketch({"m": 2 * a - 3 * b}, 64, 5)
    apart = 2 * count_sketch({"m": a}, 64, 5) - 3 * count_sketch({"m": b}, 64, 5)
    np.testing.assert_allclose(combined, apart, atol=1e-4)


def test_a_missing_part_counts_as_zeros_and_parts_add_up() -> None:
    a, b = normal(0, 300), normal(1, 200)
    alone = count_sketch({"a": a}, 64, 5)
    np.testing.assert_array_equal(alone, count_sketch({"a": a, "b": np.zeros(200)}, 64, 5))
    both = count_sketch({"b": b, "a": a}, 64, 5)
    np.testing.assert_allclose(both, alone + count_sketch({"b": b}, 64, 5), atol=1e-5)
    assert not count_sketch({}, 64, 5).any()


def test_a_coordinate_s_place_does_not_depend_on_the_length() -> None:
    a = normal(0, 300)
    padded = np.concatenate([a, np.zeros(77, np.float32)])
    np.testing.assert_array_equal(count_sketch({"a": a}, 64, 5), count_sketch({"a": padded}, 64, 5))


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    a = normal(0, 1000)
    whole = count_sketch({"a": a}, 16, 5)
    monkeypatch.setattr(sketch, "CHUNK", 33)
    sketch._keys.cache_clear()
    np.testing.assert_allclose(count_sketch({"a": a}, 16, 5), whole, rtol=1e-6, atol=1e-6)


def test_same_seed_same_sketch_other_seed_or_name_another() -> None:
    a = normal(0, 300)
    first = count_sketch({"a": a}, 64, 5)
    sketch._keys.cache_clear()
    np.testing.assert_array_equal(first, count_sketch({"a": a}, 64, 5))
    assert not np.array_equal(first, count_sketch({"a": a}, 64, 6))
    assert not np.array_equal(first, count_sketch({"b": a}, 64, 5))


def test_buckets_and_signs_are_even() -> None:
    keys = sketch._keys(1, "m", 100_000, 10)
    counts = np.bincount(keys, minlength=20)
    assert np.abs(counts - 5_000).max() < 5 * np.sqrt(5_000)


@pytest.mark.parametrize("dim", [0, -1, 2**30 + 1])
def test_impossible_dimensions_are_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=f"dim is {dim}"):
        count_sketch({"a": np.ones(3)}, dim, 0)


def test_a_matrix_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"part 'a' has shape \(2, 2\)"):
        count_sketch({"a": np.ones((2, 2))}, 4, 0)
