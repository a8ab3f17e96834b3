"""Which client has which samples, in simulations: the same on every machine for a seed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.randomness import generator

Indices = NDArray[np.int64]
SCHEMES = ("iid", "dirichlet")
_MAX_DRAWS = 100


class PartitionError(ValueError):
    """Samples cannot be divided as asked; the message names the culprit and the remedy."""


def partition(
    labels: NDArray[Any],
    num_clients: int,
    scheme: str,
    *,
    alpha: float = 1.0,
    seed: int,
    min_samples: int = 1,
) -> list[Indices]:
    """Divide samples among clients, each sample to exactly one.

    Parameters
    ----------
    labels : array (n,), int
    num_clients : int
        N, at most n.
    scheme : {"iid", "dirichlet"}
        "iid": uniformly at random, sizes differing by at most one. "dirichlet": the samples of
        every class by its own shares p ~ Dir(alpha) over the clients (the paper, Sect. 4.1),
        drawn anew, up to 100 times, until every client has ``min_samples``.
    alpha : float
        Dirichlet concentration, above 0; larger is evener. For "dirichlet" only.
    seed : int
    min_samples : int
        Fewest samples of a client, at least 1.

    Returns
    -------
    list of N arrays, int64
        Every client's rows, ascending.

    Raises
    ------
    PartitionError
        If the samples cannot be divided so.
    """
    _check(len(labels), num_clients, scheme, alpha, min_samples)
    if scheme == "iid":
        order = generator(seed, "partition").permutation(len(labels))
        return [np.sort(part) for part in np.array_split(order, num_clients)]
    for attempt in range(_MAX_DRAWS):
        parts = _dirichlet(labels, num_clients, alpha, generator(seed, "partition", attempt))
        if min(map(len, parts)) >= min_samples:
            return parts
    raise PartitionError(
        f"none of {_MAX_DRAWS} Dirichlet draws gave each of {num_clients} clients {min_samples} of "
        f"{len(labels)} samples: raise alpha ({alpha:g}), lower min_samples or have fewer clients"
    )


def class_counts(labels: NDArray[Any], parts: Sequence[Indices], num_classes: int) -> Indices:
    """Count each client's samples of every class, (N, num_classes)."""
    return np.stack([np.bincount(labels[part], minlength=num_classes) for part in parts])


def divide(
    labels: NDArray[Any],
    num_clients: int,
    scheme: str,
    *,
    fraction: float = 1.0,
    alpha: float = 1.0,
    seed: int,
    min_samples: int = 1,
) -> list[Indices]:
    """Draw a share of the samples and divide it: :func:`subsample`, then :func:`partition`.

    Returns
    -------
    list of array (n_k,), int64
        Each client's rows of ``labels``, ascending.
    """
    kept = subsample(labels, fraction, seed)
    parts = partition(
        labels[kept], num_clients, scheme, alpha=alpha, seed=seed, min_samples=min_samples
    )
    return [kept[part] for part in parts]


def client_name(number: int, total: int) -> str:
    """Return the stable id of one client of ``total``, e.g. ``client-07`` of 30."""
    return f"client-{number:0{len(str(total - 1))}d}"


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
    for rows in _rows_by_class(labels):
        count = max(int(fraction * len(rows) + 0.5), 1)
        kept.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


def _check(total: int, num_clients: int, scheme: str, alpha: float, min_samples: int) -> None:
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise PartitionError(f"unknown partition '{scheme}'{hint} (known: {', '.join(SCHEMES)})")
    if num_clients < 1:
        raise PartitionError(f"clients: at least 1, not {num_clients}")
    if min_samples < 1:
        raise PartitionError(f"min_samples: at least 1, not {min_samples}")
    if scheme == "dirichlet" and not 0 < alpha < np.inf:
        raise PartitionError(f"alpha: a finite number above 0, not {alpha}")
    if num_clients * min_samples > total:
        raise PartitionError(
            f"{total} samples cannot give {num_clients} clients {min_samples} each: have fewer "
            "clients, lower min_samples or use more data"
        )


def _dirichlet(
    labels: NDArray[Any], num_clients: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    owner = np.empty(len(labels), dtype=np.int64)
    for rows in _rows_by_class(labels):
        shares = rng.dirichlet(np.full(num_clients, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        sizes = np.diff(cuts, prepend=0, append=len(rows))
        owner[rng.permutation(rows)] = np.repeat(np.arange(num_clients), sizes)
    return [np.flatnonzero(owner == client) for client in range(num_clients)]


def _rows_by_class(labels: NDArray[Any]) -> list[Indices]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
