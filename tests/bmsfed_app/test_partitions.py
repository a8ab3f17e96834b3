"""Partitions: every sample at most once, by seed, as even or skewed as asked."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.partitions import (
    PARTITIONS,
    PartitionError,
    Share,
    class_counts,
    read_partition,
    share_out,
    subsample,
)
from bmsfed_app.partitions.schemes import apportion
from tests.plugins import install

steady = settings(derandomize=True, deadline=None, max_examples=60)
LABELS = np.arange(5000) % 10
DRAWN = ("iid", "dirichlet", "quantity", "pathological")
#: What a test leaves open, by what :func:`share_out` takes.
ARGUMENTS = ("owners", "ids")


def share(labels: NDArray[Any], number: int, scheme: str = "iid", **given: Any) -> list[Share]:
    own = {key: given.pop(key) for key in ARGUMENTS if key in given}
    seed, modalities = given.pop("seed", 0), given.pop("modalities", ("a", "b"))
    wanted = read_partition({"partition": scheme, **given})
    return share_out(labels, modalities, wanted, number, seed=seed, **own)


def rows(shares: list[Share]) -> list[list[int]]:
    return [s.rows.tolist() for s in shares]


def sizes(shares: list[Share]) -> list[int]:
    return [len(s.rows) for s in shares]


# --- what holds for every scheme ----------------------------------------------------------------


@steady
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array),
    number=st.integers(1, 8),
    scheme=st.sampled_from([*DRAWN, "natural"]),
    alpha=st.sampled_from([0.01, 0.5, 2.0, 1e6]),
    classes_per_client=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    min_samples=st.integers(1, 4),
    samples_per_client=st.sampled_from([0, 4, 9]),
)
def test_every_sample_has_one_client(
    labels: NDArray[np.int64], number: int, scheme: str, samples_per_client: int, **given: Any
) -> None:
    owners = (np.arange(len(labels)) % 9).astype(str)

    def divide(**change: Any) -> list[Share]:
        return share(labels, number, scheme, owners=owners, clients=number, **given, **change)

    try:
        whole = divide()
    except PartitionError:
        assert scheme != "iid" or number * given["min_samples"] > len(labels)
        return
    assert len(whole) == len({s.name for s in whole}) == number
    assert sorted(np.concatenate([s.rows for s in whole]).tolist()) == list(range(len(labels)))
    assert min(sizes(whole)) >= given["min_samples"]
    assert all(np.all(np.diff(s.rows) > 0) and s.rows.dtype == np.int64 for s in whole)
    assert rows(whole) == rows(divide())
    if scheme == "iid":
        assert max(sizes(whole)) - min(sizes(whole)) <= 1
    if scheme == "pathological":
        held = class_counts(labels, whole, 5) > 0
        assert set(held.sum(1)) == {given["classes_per_client"]}
        holders = held.sum(0)[np.unique(labels)]
        assert holders.max() - holders.min() <= 1
    few = divide(samples_per_client=samples_per_client)
    assert sizes(few) == [min(n, samples_per_client or n) for n in sizes(whole)]
    assert all(set(f.rows) <= set(w.rows) for f, w in zip(few, whole, strict=True))


#: crc32 of all rows of five clients, by scheme: the same on every machine, for ever.
GOLDEN: list[tuple[str, dict[str, Any], int]] = [
    ("iid", {}, 2920431945),
    ("dirichlet", {}, 1079543631),
    ("quantity", {}, 3300645822),
    ("pathological", {}, 2908196484),
    ("iid", {"samples_per_client": 50}, 304475469),
]


@pytest.mark.parametrize(("scheme", "given", "crc"), GOLDEN)
def test_shares_by_seed(scheme: str, given: dict[str, Any], crc: int) -> None:
    one, same, other = (share(LABELS, 5, scheme, seed=seed, **given) for seed in (1, 1, 2))
    assert rows(one) == rows(same) != rows(other)
    assert zlib.crc32(b"|".join(s.rows.astype("<i8").tobytes() for s in one)) == crc


def test_golden_modalities() -> None:
    shares = share(LABELS, 5, whole_share=0.4, seed=1)
    assert ["".join(s.modalities) for s in shares] == ["b", "b", "ab", "a", "ab"]


def test_golden_indices() -> None:
    labels = np.arange(12) % 3
    assert rows(share(labels, 3)) == [[0, 2, 5, 8], [1, 6, 10, 11], [3, 4, 7, 9]]
    uneven = share(labels, 3, "dirichlet")
    assert rows(uneven) == [[0, 8, 11], [1, 3, 6, 9, 10], [2, 4, 5, 7]]
    assert [s.name for s in uneven] == ["client-0", "client-1", "client-2"]
    assert subsample(labels, 0.5, 0).tolist() == [0, 1, 2, 4, 9, 11]
    half = share(labels, 2, data_fraction=0.5)
    assert sorted(np.concatenate([s.rows for s in half]).tolist()) == [0, 1, 2, 4, 9, 11]


# --- iid and Dirichlet --------------------------------------------------------------------------


def test_iid_classes_are_spread_evenly() -> None:
    counts = class_counts(LABELS, share(LABELS, 10, seed=3), 10)
    assert counts.shape == (10, 10)
    assert counts.sum() == 5000
    # Hypergeometric: mean 50, standard deviation 6.4.
    assert 50 - 5 * 6.4 < counts.min() <= counts.max() < 50 + 5 * 6.4


def test_dirichlet_shares_have_their_moments() -> None:
    # p ~ Dir(alpha, ..., alpha) over N: mean 1/N, variance (1/N)(1 - 1/N) / (N alpha + 1).
    n, alpha = 5, 1.0
    shares = np.concatenate(
        [
            class_counts(LABELS, share(LABELS, n, "dirichlet", alpha=alpha, seed=s), 10).T / 500
            for s in range(60)
        ]
    )
    assert shares.mean(axis=0) == pytest.approx(np.full(n, 1 / n), abs=0.03)
    assert shares.var() == pytest.approx((1 / n) * (1 - 1 / n) / (n * alpha + 1), rel=0.1)


def test_smaller_alpha_is_more_skewed() -> None:
    def skew(alpha: float) -> float:
        """Mean over classes of the largest client's share of the class."""
        counts = class_counts(LABELS, share(LABELS, 10, "dirichlet", alpha=alpha), 10)
        return float((counts.max(axis=0) / counts.sum(axis=0)).mean())

    skews = [skew(alpha) for alpha in (0.1, 1.0, 10.0, 1e6)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.5
    assert skews[-1] == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("scheme", ["dirichlet", "quantity"])
def test_poor_draws_are_drawn_anew(scheme: str) -> None:
    labels = np.zeros(60, dtype=np.int64)
    smallest = [
        min(sizes(share(labels, 6, scheme, seed=s, min_samples=m)))
        for m in (1, 4)
        for s in range(20)
    ]
    assert min(smallest[:20]) < 4 <= min(smallest[20:])


# --- quantity and pathological ------------------------------------------------------------------


def test_sizes_are_rounded_by_largest_remainders() -> None:
    # Of 10: 3.75, 3.75, 2.5. Whole parts 3, 3, 2; the two left over go to the first two.
    assert apportion(np.array([1.5, 1.5, 1.0]), 10).tolist() == [4, 4, 2]
    # Of 7: 0.7, 1.4, 4.9. One goes to 4.9, then one to 0.7.
    assert apportion(np.array([1.0, 2.0, 7.0]), 7).tolist() == [1, 1, 5]
    assert apportion(np.array([1.0, 0.0]), 3).tolist() == [3, 0]


def test_quantities_are_log_normal_and_classes_are_not_skewed() -> None:
    number, sigma = 10, 0.5
    labels = np.arange(40_000) % 2
    parts = [share(labels, number, "quantity", sigma=sigma, seed=s) for s in range(40)]
    logs = np.log([sizes(p) for p in parts])
    # Normalisation takes each federation's mean, and one of its N degrees of freedom.
    assert logs.var(axis=1, ddof=1).mean() == pytest.approx(sigma**2, rel=0.15)
    counts = class_counts(labels, parts[0], 2)
    assert counts[:, 0] / counts.sum(1) == pytest.approx(np.full(number, 0.5), abs=0.03)
    assert sizes(share(LABELS, 8, "quantity", sigma=0.0)) == [625] * 8
    assert sum(sizes(share(LABELS, 3, "quantity", sigma=2.0))) == 5000


def test_pathological_by_hand() -> None:
    # 5 clients of 2 of 10 classes: each class has one holder, who has all of it.
    counts = class_counts(LABELS, share(LABELS, 5, "pathological"), 10)
    assert sorted(counts.sum(0)) == [500] * 10
    assert np.unique(counts).tolist() == [0, 500]
    # 4 clients of 3 classes: two classes have two holders, of 250 samples each.
    counts = class_counts(LABELS, share(LABELS, 4, "pathological", classes_per_client=3), 10)
    assert ((counts > 0).sum(1) == 3).all()
    assert sorted(counts[counts > 0]) == [250] * 4 + [500] * 8


# --- natural ------------------------------------------------------------------------------------

TALKERS = np.repeat(["ann", "bob/1", "bob 1", "..", "eve"], [5, 1, 2, 3, 4])


def test_one_client_per_owner_under_a_safe_name() -> None:
    shares = share(np.zeros(15, int), 5, "natural", owners=TALKERS, seed=7)
    found = {s.name: TALKERS[s.rows].tolist() for s in shares}
    assert found == {
        "client": [".."] * 3,
        "ann": ["ann"] * 5,
        "bob-1": ["bob 1"] * 2,
        "bob-1-2": ["bob/1"],
        "eve": ["eve"] * 4,
    }


def test_owners_are_grouped_whole_the_largest_into_the_smallest_group() -> None:
    # 5 | 4 -> 3 joins the 4 -> 2 joins the 5 -> 1 joins the first of 7 and 7.
    shares = share(np.zeros(15, int), 2, "natural", owners=TALKERS, clients=2)
    assert [s.name for s in shares] == ["client-0", "client-1"]
    assert [sorted(set(TALKERS[s.rows])) for s in shares] == [
        ["ann", "bob 1", "bob/1"],
        ["..", "eve"],
    ]
    assert sizes(shares) == [8, 7]


# --- modalities ---------------------------------------------------------------------------------


def held(number: int, **given: Any) -> dict[str, int]:
    """How many clients hold what."""
    found: dict[str, int] = {}
    for s in share(np.zeros(200, int), number, **given):
        found["+".join(s.modalities)] = found.get("+".join(s.modalities), 0) + 1
    return found


def test_incongruity_by_count() -> None:
    assert held(20, whole_share=0.5) == {"a+b": 10, "a": 5, "b": 5}
    assert held(20) == {"a+b": 20}
    assert held(5, whole_share=0.5)["a+b"] == 3  # 2.5, halves up
    assert held(6, whole_share=0.0) == {"a": 3, "b": 3}
    # The odd one falls to either, by seed.
    odd = [held(7, whole_share=0.0, seed=s) for s in range(12)]
    assert {(o["a"], o["b"]) for o in odd} == {(3, 4), (4, 3)}


def test_incongruity_of_three_modalities() -> None:
    three: dict[str, Any] = {"modalities": ("a", "b", "c"), "whole_share": 0.25}
    assert held(12, **three) == {"a+b+c": 3, "a": 3, "b": 3, "c": 3}
    pairs = (("b", "a"), ("c",), ("b", "c"))
    assert held(12, subsets=pairs, **three) == {"a+b+c": 3, "a+b": 3, "c": 3, "b+c": 3}


def test_who_lacks_what_follows_from_the_seed_alone() -> None:
    def pattern(scheme: str, seed: int) -> list[tuple[str, ...]]:
        shares = share(LABELS, 20, scheme, whole_share=0.5, seed=seed)
        return [s.modalities for s in shares]

    assert pattern("iid", 0) == pattern("dirichlet", 0) != pattern("iid", 1)
    assert rows(share(LABELS, 20, whole_share=0.5)) == rows(share(LABELS, 20))


# --- what is refused ----------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"alpha": 0.0}, "partition 'dirichlet': alpha: .*greater than 0, not 0.0"),
    ({"alpha": float("nan")}, "alpha"),
    ({"alpha": float("inf")}, "alpha"),
    ({"scheme": "quantity", "sigma": -1.0}, "sigma: .*greater than or equal to 0, not -1.0"),
    ({"number": 0}, "clients: at least 1, not 0"),
    ({"min_samples": 0}, "min_samples: .*greater than or equal to 1, not 0"),
    ({"number": 41}, "40 samples cannot give 41 clients 1 each: have fewer clients"),
    ({"number": 21, "data_fraction": 0.5}, "20 samples cannot give 21 clients 1 each"),
    ({"min_samples": 9}, "40 samples cannot give 5 clients 9 each"),
    ({"scheme": "dirichet"}, "unknown partition 'dirichet'; did you mean 'dirichlet'"),
    ({"alpha": 0.001, "min_samples": 8}, "none of 100 dirichlet draws .* 8 of 40 .*: raise alpha"),
    (
        {"scheme": "quantity", "sigma": 50.0, "min_samples": 8},
        "none of 100 quantity draws gave each of 5 clients 8 of 40 samples: lower sigma",
    ),
    ({"scheme": "pathological", "classes_per_client": 5}, "classes_per_client: 5 of 4 classes"),
    (
        {"scheme": "pathological", "classes_per_client": 0},
        "classes_per_client: .* 1, not 0",
    ),
    (
        {"scheme": "pathological", "classes_per_client": 1, "number": 3},
        "3 clients of 1 classes cannot hold all 4 classes; raise it",
    ),
    (
        {"scheme": "pathological", "classes_per_client": 4, "number": 11},
        "class 0 has 10 samples for 11 clients: have fewer clients",
    ),
    (
        {"scheme": "pathological", "classes_per_client": 1, "min_samples": 6},
        "client 'client-.' would have 5 samples, min_samples is 6",
    ),
    ({"scheme": "natural"}, "natural needs data that knows its natural clients"),
    ({"scheme": "natural", "owners": np.repeat(["x", "y"], 20)}, "5 clients of 2 natural ones"),
    (
        {"scheme": "natural", "owners": np.repeat(["x", "y"], 20), "number": 1},
        "2 natural clients, but a federation of 1: start it with num-supernodes=2, or group them",
    ),
    (
        {"scheme": "natural", "owners": np.repeat(["x", "y"], [39, 1]), "number": 2}
        | {"min_samples": 2},
        "client 'y' would have 1 samples, min_samples is 2: lower it",
    ),
    ({"samples_per_client": -1}, "samples_per_client: .*equal to 0, not -1"),
    ({"samples_per_client": 2, "min_samples": 3}, r"at least min_samples \(3\), not 2"),
    ({"whole_share": 1.5}, "whole_share: .*less than or equal to 1, not 1.5"),
    ({"subsets": (("a", "d"),)}, r"subsets: no modality 'd' \(the data set has a, b\)"),
    ({"subsets": ((),)}, "subsets: an empty one holds nothing; name some of a, b"),
    ({"whole_share": 0.0, "subsets": (("b",),)}, "no client holds modality 'a': raise whole_share"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_impossible_partitions_are_refused(change: Mapping[str, Any], message: str) -> None:
    wanted = {"number": 5, "scheme": "dirichlet"} | dict(change)
    with pytest.raises(PartitionError, match=message) as caught:
        share(np.arange(40) % 4, **wanted)
    assert "\n" not in str(caught.value)


def test_class_counts_by_hand() -> None:
    labels = np.array([0, 2, 2, 1, 0])
    parts = [Share(n, np.array(r), ("a",)) for n, r in (("x", [0, 1, 2]), ("y", [3, 4]))]
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


def test_what_a_partition_is_in_words() -> None:
    def words(**given: Any) -> str:
        return read_partition(given).describe()

    assert words() == "iid"
    assert words(partition="dirichlet", alpha=2.0, sigma=3.0) == "dirichlet (alpha 2)"
    assert words(partition="pathological") == "pathological (2 classes per client)"
    assert words(partition="natural", samples_per_client=50, whole_share=0.5) == (
        "natural, at most 50 samples per client, 50 % of the clients hold all modalities, the "
        "others one modality each"
    )
    pairs = words(partition="quantity", whole_share=0.0, subsets=[["a"], ["b", "c"]])
    assert pairs.endswith("the others a or b+c")


def test_a_partition_travels_as_plain_values_and_keeps_caches() -> None:
    given = {"partition": "quantity", "sigma": 2, "subsets": [["a"], ["b"]], "rounds": 3}
    found = read_partition(given)
    again = read_partition(json.loads(json.dumps(found.model_dump(mode="json"))))
    assert again == found
    assert hash(again) == hash(found)
    assert found != read_partition(given | {"sigma": 3})


# --- a scheme of one's own ----------------------------------------------------------------------

BLOCKS = """
from typing import Literal
import numpy as np
from pydantic import Field
from bmsfed_app.partitions import Division, Partition

class Blocks(Partition):
    size: int = Field(ge=1)
    sides: list[Literal["left", "right"]] = []

    def divide(self, samples, num_clients, seed):
        starts = range(0, num_clients * self.size, self.size)
        return Division([np.arange(start, start + self.size) for start in starts])

class NoPartition:
    pass
"""


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_blocks.py").write_text(BLOCKS)
    points = {"blocks": "their_blocks:Blocks", "none": "their_blocks:NoPartition"}
    install(tmp_path, monkeypatch, {"bmsfed.partitions": points}, PARTITIONS)


@pytest.mark.usefixtures("blocks")
def test_a_scheme_of_another_package_has_keys_of_its_own() -> None:
    given = {"partition": "blocks", "partition_settings": {"size": 3, "sides": ["left"]}}
    parts = share_out(LABELS, ("a", "b"), read_partition(given), 2, seed=0)
    assert rows(parts) == [[0, 1, 2], [3, 4, 5]]
    config = load_config("cg-digits", given)
    assert config.division().describe() == "blocks (size 3, sides ['left'])"
    assert read_partition(config.client_settings().partition) == config.division()
    assert hash(config.division()) == hash(read_partition(given))
    for own, message in (
        ({}, "partition 'blocks': size: Field required"),
        ({"size": 0}, "size: .*greater than or equal to 1, not 0"),
        ({"size": 1, "sise": 2}, "unknown key 'sise'; did you mean 'size'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config("cg-digits", {"partition": "blocks", "partition_settings": own})
    with pytest.raises(ConfigError, match="NoPartition is no class of bmsfed_app"):
        load_config("cg-digits", {"partition": "none"})
    own = ["iid", "dirichlet", "quantity", "pathological", "natural", "file"]
    assert PARTITIONS.names() == [*own, "blocks", "none"]
