"""Sharing samples and modalities out among simulated clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmsfed_app.partitions.base import (
    Indices,
    Names,
    Partition,
    PartitionError,
    Samples,
    Share,
    client_names,
    rows_by_class,
)
from bmsfed_app.registry import nearest
from strategies.randomness import generator

if TYPE_CHECKING:
    from bmsfed_app.datasets.base import Split


def share_out(
    labels: NDArray[Any],
    modalities: Sequence[str],
    partition: Partition,
    num_clients: int,
    *,
    seed: int,
    owners: Names | None = None,
    ids: Names | None = None,
) -> list[Share]:
    """Divide samples among clients, each to one at most, and say who holds which modalities.

    A stratified ``data_fraction`` of the samples is divided by the partition's scheme. Then each
    client keeps at most ``samples_per_client``, drawn by itself: a smaller cap's samples are among
    a larger one's. Then ``whole_share`` of the clients hold all modalities and the others one of
    ``subsets`` each, as evenly as can be (the paper, Table 5).

    Parameters
    ----------
    labels : array (n,), int
    modalities : sequence of str
        The data set's.
    partition : Partition
    num_clients : int
        N, at most n.
    seed : int
    owners : array (n,) of str, optional
        Each sample's natural client: a talker, a subject, an event.
    ids : array (n,) of str, optional
        Each sample's name, unique; for "file".

    Returns
    -------
    list of N Share

    Raises
    ------
    PartitionError
        If the samples or modalities cannot be divided so.
    """
    least = partition.min_samples
    if num_clients < 1:
        raise PartitionError(f"clients: at least 1, not {num_clients}")
    if fault := subsets_fault(partition.subsets, modalities):
        raise PartitionError(f"subsets: {fault}")
    samples = _samples(labels, modalities, partition, seed, owners, ids)
    kept = samples.rows
    if num_clients * least > len(kept):
        raise PartitionError(
            f"{len(kept)} samples cannot give {num_clients} clients {least} each: have fewer "
            "clients, lower min_samples or use more data"
        )
    division = partition.divide(samples, num_clients, seed)
    names = division.names or client_names(num_clients)
    parts = [kept[part] for part in division.parts]
    _check_sizes(names, [len(part) for part in parts], partition)
    if partition.samples_per_client:
        parts = _capped(names, parts, partition.samples_per_client, seed)
    held = division.held or _held(modalities, partition, num_clients, seed)
    if absent := [m for m in modalities if not any(m in own for own in held)]:
        raise PartitionError(
            f"no client holds modality '{absent[0]}': raise whole_share, or have subsets, or the "
            "file's modalities, name it"
        )
    return [Share(*share) for share in zip(names, parts, held, strict=True)]


def _capped(names: Sequence[str], parts: Sequence[Indices], cap: int, seed: int) -> list[Indices]:
    """Draw what each client keeps."""
    return [
        np.sort(generator(seed, "samples per client", name).permutation(part)[:cap])
        for name, part in zip(names, parts, strict=True)
    ]


def _samples(
    labels: NDArray[Any],
    modalities: Sequence[str],
    partition: Partition,
    seed: int,
    owners: Names | None,
    ids: Names | None,
) -> Samples:
    """Say what is to be divided."""
    there = np.setdiff1d(np.arange(len(labels)), validation_rows(labels, partition, seed))
    kept = there[subsample(labels[there], partition.data_fraction, seed)]
    own, natural = (None, None) if owners is None else (owners[kept], np.unique(owners))
    return Samples(labels[kept], kept, tuple(modalities), len(labels), own, natural, ids)


def validation_rows(labels: NDArray[Any], partition: Partition, seed: int) -> Indices:
    """Draw the samples that no client has: of every class its share, but never the last one.

    Parameters
    ----------
    labels : array (n,), int
        Of the whole training split.
    partition : Partition
    seed : int

    Returns
    -------
    array, int64
        Rows, ascending.
    """
    rng = generator(seed, "validation")
    kept = [np.empty(0, dtype=np.int64)]
    for rows in rows_by_class(labels) if partition.validation else ():
        count = min(int(partition.validation * len(rows) + 0.5), len(rows) - 1)
        kept.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


def held_out_rows(
    samples: int, share: float, seed: int, client_id: str, purpose: str = "client test"
) -> NDArray[np.bool_]:
    """Say which of a client's samples it keeps out of its training, the same in every round.

    Parameters
    ----------
    samples : int
        n, all that the client has.
    share : float
        Of them, in [0, 1); above 0, at least one is on either side. A client with a single sample
        keeps none.
    seed : int
        The experiment's.
    client_id : str
    purpose : str
        With seed and client, what is drawn by.

    Returns
    -------
    array (n,), bool
    """
    kept = np.zeros(samples, dtype=np.bool_)
    if share > 0 and samples > 1:
        count = min(max(round(share * samples), 1), samples - 1)
        drawn = generator(seed, purpose, client_id).permutation(samples)
        kept[drawn[:count]] = True
    return kept


def own_clients(split: Split, partition: Partition, *, seed: int) -> int:
    """Count the clients that a training split or a file itself has; 0: any number will do.

    Raises
    ------
    PartitionError
        If there are none, or samples that name none.
    """
    labels = split.labels.cpu().numpy()
    samples = _samples(labels, split.modalities, partition, seed, split.owners, split.ids)
    return partition.own_clients(samples)


def experiment_shares(
    split: Split, partition: Partition, num_clients: int, *, seed: int
) -> list[Share]:
    """Share an experiment's training split out; see :func:`share_out`."""
    return share_out(
        split.labels.cpu().numpy(),
        split.modalities,
        partition,
        num_clients,
        seed=seed,
        owners=split.owners,
        ids=split.ids,
    )


def _held(
    modalities: Sequence[str], partition: Partition, num_clients: int, seed: int
) -> list[tuple[str, ...]]:
    """Draw which clients hold all modalities, and which subset each of the others holds."""
    held = [tuple(modalities)] * num_clients
    named = partition.subsets or tuple((m,) for m in modalities)
    subsets = [tuple(m for m in modalities if m in subset) for subset in named]
    rng = generator(seed, "modalities")
    others = rng.permutation(num_clients)[int(partition.whole_share * num_clients + 0.5) :]
    turns = rng.permutation(len(subsets))  # which subset is held once more falls by chance
    for turn, client in enumerate(others):
        held[client] = subsets[turns[turn % len(turns)]]
    return held


def subsample(labels: NDArray[Any], fraction: float, seed: int) -> Indices:
    """Draw a stratified share of the samples.

    Of every class the nearest whole number to its share, at least one sample. By the same seed, a
    smaller fraction's samples are among a larger one's.

    Parameters
    ----------
    labels : array (n,), int
    fraction : float
        Above 0, to 1.
    seed : int

    Returns
    -------
    array, int64
        Rows, ascending.

    Raises
    ------
    PartitionError
        If ``fraction`` is out of its range.
    """
    if not 0 < fraction <= 1:
        raise PartitionError(f"data_fraction: a share above 0, to 1, not {fraction}")
    rng = generator(seed, "subsample")
    kept = [np.empty(0, dtype=np.int64)]
    for rows in rows_by_class(labels):
        count = max(int(fraction * len(rows) + 0.5), 1)
        kept.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


# --- what is refused ----------------------------------------------------------------------------


def subsets_fault(subsets: Sequence[Sequence[str]], modalities: Sequence[str]) -> str:
    """Say what is wrong with sets of modalities; empty if nothing is."""
    for subset in subsets:
        if not subset:
            return f"an empty one holds nothing; name some of {', '.join(modalities)}"
        if unknown := [m for m in subset if m not in modalities]:
            return (
                f"no modality '{unknown[0]}'{nearest(unknown[0], modalities)} "
                f"(the data set has {', '.join(modalities)})"
            )
    return ""


def _check_sizes(names: Sequence[str], sizes: Sequence[int], partition: Partition) -> None:
    least, smallest = partition.min_samples, int(np.argmin(sizes))
    if not sizes[smallest]:
        less = f" of those kept by data_fraction {partition.data_fraction:g}"
        raise PartitionError(
            f"client '{names[smallest]}' would have no sample"
            f"{less if partition.data_fraction < 1 else ''}: have fewer clients or use more data"
        )
    if sizes[smallest] < least:
        raise PartitionError(
            f"client '{names[smallest]}' would have {sizes[smallest]} samples, min_samples is "
            f"{least}: lower it, have fewer clients or use more data"
        )
