"""Our partitions against those of flwr-datasets, by statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bmsfed_app.partitions import class_counts, read_partition, share_out

partitioners = pytest.importorskip("flwr_datasets.partitioner")
datasets = pytest.importorskip("datasets")

LABELS = np.arange(2000) % 10
OWNERS = np.array([f"talker {i * i % 7}" for i in range(2000)])


def theirs(partitioner: Any, number: int) -> NDArray[np.int64]:
    """Class counts (number, 10) of the oracle's clients."""
    columns = {"label": LABELS, "owner": OWNERS}
    partitioner.dataset = datasets.Dataset.from_dict(columns)
    parts = [partitioner.load_partition(i)["label"] for i in range(number)]
    return np.stack([np.bincount(np.asarray(list(part)), minlength=10) for part in parts])


def ours(number: int, scheme: str, seed: int = 0, **given: Any) -> NDArray[np.int64]:
    settings = read_partition({"partition": scheme, **given})
    shares = share_out(LABELS, ("a", "b"), settings, number, seed=seed, owners=OWNERS)
    return class_counts(LABELS, shares, 10)


def test_iid_sizes() -> None:
    expected = theirs(partitioners.IidPartitioner(num_partitions=7), 7).sum(1)
    assert sorted(ours(7, "iid").sum(1)) == sorted(expected)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_dirichlet_class_shares(alpha: float) -> None:
    number, seeds = 5, range(20)

    def oracle(seed: int) -> Any:
        return partitioners.DirichletPartitioner(
            num_partitions=number,
            partition_by="label",
            alpha=alpha,
            min_partition_size=1,
            self_balancing=False,
            seed=seed,
        )

    # Quantiles of the clients' shares of a class, over seeds.
    levels = [0.1, 0.25, 0.5, 0.75, 0.9]
    expected = np.quantile([theirs(oracle(s), number) / 200 for s in seeds], levels)
    found = np.quantile([ours(number, "dirichlet", s, alpha=alpha) / 200 for s in seeds], levels)
    assert found == pytest.approx(expected, abs=0.045)


def test_pathological_classes_per_client() -> None:
    oracle = partitioners.PathologicalPartitioner(
        num_partitions=10,
        partition_by="label",
        num_classes_per_partition=3,
        class_assignment_mode="deterministic",
        seed=0,
    )
    expected, found = theirs(oracle, 10), ours(10, "pathological", classes_per_client=3)
    assert ((found > 0).sum(1) == (expected > 0).sum(1)).all()
    assert sorted((found > 0).sum(0)) == sorted((expected > 0).sum(0)) == [3] * 10
    assert sorted(found[found > 0]) == sorted(expected[expected > 0])


def test_natural_clients() -> None:
    number = len(np.unique(OWNERS))
    expected = theirs(partitioners.NaturalIdPartitioner(partition_by="owner"), number)
    assert sorted(map(tuple, ours(number, "natural"))) == sorted(map(tuple, expected))
