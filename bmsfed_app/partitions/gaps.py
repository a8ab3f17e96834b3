"""Training and test data with gaps: what each client is left with, in simulations and in shards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bmsfed_app.partitions.base import Partition, PartitionError, Share
from bmsfed_app.partitions.missing import (
    Matrix,
    Missing,
    client_draws,
    lose_each,
    lose_one,
    sample_draws,
)
from bmsfed_app.partitions.sharing import experiment_shares

if TYPE_CHECKING:
    from bmsfed_app.datasets.base import Split


def experiment_data(
    split: Split, partition: Partition, num_clients: int, *, seed: int
) -> tuple[Split, list[Share]]:
    """Share an experiment's training split out, and draw what its samples lack.

    Parameters
    ----------
    split : Split
        On the host; its samples may lack modalities already.
    partition : Partition
    num_clients : int
    seed : int

    Returns
    -------
    split : Split
        With masks; the one given where nothing is missing.
    shares : list of Share
        Without samples that have none of their client's modalities, and without modalities that
        none of their samples has; with ``complete_only``, without samples that lack any other.

    Raises
    ------
    PartitionError
        If the data cannot be divided so, or a client is left with fewer than ``min_samples``.
    """
    shares = experiment_shares(split, partition, num_clients, seed=seed)
    missing = partition.missing or Missing()
    if not (missing.rate or split.present):
        return split, shares
    there = _matrix(split)
    each, one = sample_draws(len(split), split.modalities, "train", seed)
    left = []
    for share in shares:
        of = np.array([split.modalities.index(m) for m in share.modalities])
        own = np.ix_(share.rows, of)
        if missing.scheme == "client":
            drawn = client_draws(share.name, share.modalities, seed)
            there[own] &= lose_each(np.ones_like(drawn, bool), drawn, missing.rate)
        else:
            there[own] = _lost(there[own], missing, each[own], one[share.rows])
        left.append(_left(share, there[own], missing.complete_only, partition.min_samples))
    return _masked(split, there), left


def masked_as_training(split: Split, missing: Missing, *, seed: int) -> Split:
    """Return a test split of which as much is missing as in training.

    A test sample is of no client: where clients lose modalities, it does so by itself.
    """
    there = _matrix(split)
    each, one = sample_draws(len(split), split.modalities, "test", seed)
    return _masked(split, _lost(there, missing, each, one))


def _lost(
    there: Matrix, missing: Missing, each: NDArray[np.float64], one: NDArray[np.float64]
) -> Matrix:
    if missing.scheme == "one":
        return lose_one(there, each, one, missing.rate)
    return lose_each(there, each, missing.rate)


def _left(share: Share, there: Matrix, complete_only: bool, least: int) -> Share:
    """Return what a client can train on, by what its samples have (n_k, K_k)."""
    has = np.logical_or.reduce(there, axis=0)
    enough = np.logical_and if complete_only else np.logical_or
    kept = enough.reduce(there[:, has], axis=1)
    if kept.sum() < max(least, 1):
        what, remedy = "any of its modalities", "mend the data"
        if complete_only:
            what, remedy = "all that it has", "lower missing.rate, set missing.complete_only=false"
        raise PartitionError(
            f"client '{share.name}' has {kept.sum()} samples with {what}, of {len(kept)} "
            f"(min_samples: {least}): {remedy}, or have fewer clients"
        )
    held = tuple(m for m, some in zip(share.modalities, has, strict=True) if some)
    return replace(share, rows=share.rows[kept], modalities=held)


def _matrix(split: Split) -> Matrix:
    """Return what the samples of a split have, (n, K), a column per modality."""
    whole = torch.ones(len(split), dtype=torch.bool)
    columns = [split.present.get(m, whole).cpu() for m in split.modalities]
    return torch.stack(columns, dim=1).numpy()


def _masked(split: Split, there: Matrix) -> Split:
    columns = np.ascontiguousarray(there.T)
    masks = zip(split.modalities, columns, strict=True)
    return split.lacking({m: torch.from_numpy(mask) for m, mask in masks})
