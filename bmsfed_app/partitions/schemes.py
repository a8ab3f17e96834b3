"""The schemes that draw who has which samples, and the one that follows the natural clients."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmsfed_app.partitions.base import (
    Indices,
    Names,
    PartitionError,
    PartitionSettings,
    client_names,
    rows_by_class,
)
from strategies.randomness import generator

_MAX_DRAWS = 100


def iid(
    labels: NDArray[Any], settings: PartitionSettings, num_clients: int, seed: int
) -> list[Indices]:
    """Divide uniformly at random; sizes differ by at most one."""
    order = generator(seed, "partition").permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, num_clients)]


def dirichlet(
    labels: NDArray[Any], settings: PartitionSettings, num_clients: int, seed: int
) -> list[Indices]:
    """Divide every class by shares p ~ Dir(alpha) over the clients (the paper, Sect. 4.1).

    Raises
    ------
    PartitionError
        If none of 100 draws gives every client ``min_samples``.
    """

    def _draw(attempt: int) -> list[Indices]:
        rng = generator(seed, "partition", attempt)
        owner = np.empty(len(labels), dtype=np.int64)
        for rows in rows_by_class(labels):
            shares = rng.dirichlet(np.full(num_clients, settings.alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
            sizes = np.diff(cuts, prepend=0, append=len(rows))
            owner[rng.permutation(rows)] = np.repeat(np.arange(num_clients), sizes)
        return _by_owner(owner, num_clients)

    remedy = f"raise alpha ({settings.alpha:g})"
    return _redraw(_draw, "Dirichlet", remedy, len(labels), settings, num_clients)


def quantity(
    labels: NDArray[Any], settings: PartitionSettings, num_clients: int, seed: int
) -> list[Indices]:
    """Divide uniformly at random into sizes that are log-normal (0, sigma), normalised.

    Raises
    ------
    PartitionError
        If none of 100 draws gives every client ``min_samples``.
    """

    def _draw(attempt: int) -> list[Indices]:
        rng = generator(seed, "partition", "quantity", attempt)
        logs = rng.normal(0, settings.sigma, num_clients)
        sizes = apportion(np.exp(logs - logs.max()), len(labels))
        order = rng.permutation(len(labels))
        return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]

    remedy = f"lower sigma ({settings.sigma:g})"
    return _redraw(_draw, "quantity", remedy, len(labels), settings, num_clients)


def apportion(weights: NDArray[np.float64], total: int) -> Indices:
    """Round shares of ``total`` to whole numbers of that sum, by largest remainders.

    Parameters
    ----------
    weights : array (N,)
        Not negative, not all 0.
    total : int

    Returns
    -------
    array (N,), int64
    """
    quotas = weights / weights.sum() * total
    sizes = np.floor(quotas).astype(np.int64)
    left = total - int(sizes.sum())
    sizes[np.argsort(sizes - quotas, kind="stable")[:left]] += 1
    return sizes


def pathological(
    labels: NDArray[Any], settings: PartitionSettings, num_clients: int, seed: int
) -> list[Indices]:
    """Give every client samples of exactly ``classes_per_client`` classes.

    The clients draw, one after the other, among the classes with the fewest holders, so the
    numbers of holders differ by at most one; a class's samples are split evenly among its holders.

    Raises
    ------
    PartitionError
        If a class would have no holder, or a holder no sample.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    number = settings.classes_per_client
    if number > len(classes):
        raise PartitionError(f"classes_per_client: {number} of {len(classes)} classes; lower it")
    if num_clients * number < len(classes):
        raise PartitionError(
            f"classes_per_client: {num_clients} clients of {number} classes cannot hold all "
            f"{len(classes)} classes; raise it or have more clients"
        )
    rng = generator(seed, "partition", "pathological")
    holds = np.zeros((num_clients, len(classes)), dtype=bool)
    for client in range(num_clients):
        fewest = np.lexsort((rng.random(len(classes)), holds.sum(0)))
        holds[client, fewest[:number]] = True
    holders = holds.sum(0)
    if (short := np.flatnonzero(sizes < holders)).size:
        k = short[0]
        raise PartitionError(
            f"class {classes[k]} has {sizes[k]} samples for {holders[k]} clients: have fewer "
            "clients, lower classes_per_client or use more data"
        )
    owner = np.empty(len(labels), dtype=np.int64)
    for k, rows in enumerate(rows_by_class(labels)):
        turns = rng.permutation(np.flatnonzero(holds[:, k]))  # who is first may get one more
        owner[rng.permutation(rows)] = turns[np.arange(len(rows)) % len(turns)]
    return _by_owner(owner, num_clients)


#: What needs nothing but labels and a seed.
DRAWN: dict[str, Callable[[NDArray[Any], PartitionSettings, int, int], list[Indices]]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "quantity": quantity,
    "pathological": pathological,
}


def natural(owners: Names, num_clients: int) -> tuple[list[str], list[Indices]]:
    """Follow the data's natural clients; where there are fewer clients, group whole ones.

    Owners are grouped largest first, each into the smallest group so far. Nothing is drawn.

    Parameters
    ----------
    owners : array (n,) of str
        Each sample's natural client.
    num_clients : int

    Returns
    -------
    names : list of N str
        The owners', made safe as ids; numbers where owners are grouped.
    parts : list of N arrays, int64

    Raises
    ------
    PartitionError
        If there are fewer owners than clients.
    """
    named, place, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    if num_clients > len(named):
        raise PartitionError(
            f"{num_clients} clients of {len(named)} natural ones: have at most {len(named)} "
            "clients or another partition"
        )
    if num_clients == len(named):
        return safe_names([str(name) for name in named]), _by_owner(place, num_clients)
    groups = [(0, group) for group in range(num_clients)]
    group_of = np.empty(len(named), dtype=np.int64)
    for owner in np.argsort(-sizes, kind="stable"):
        size, group = groups[0]
        group_of[owner] = group
        heapq.heapreplace(groups, (size + int(sizes[owner]), group))
    return client_names(num_clients), _by_owner(group_of[place], num_clients)


def safe_names(names: Sequence[str]) -> list[str]:
    """Return names fit for ids and folders, all different, as near to ``names`` as can be."""
    safe: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "client"
        found, number = plain, 1
        while found in safe:
            number += 1
            found = f"{plain}-{number}"
        safe[found] = None
    return list(safe)


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


def _by_owner(owner: NDArray[np.int64], num_clients: int) -> list[Indices]:
    """Return each client's rows, ascending, from every row's client."""
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=num_clients)
    return np.split(order, np.cumsum(sizes)[:-1])


def _redraw(
    draw: Callable[[int], list[Indices]],
    what: str,
    remedy: str,
    total: int,
    settings: PartitionSettings,
    num_clients: int,
) -> list[Indices]:
    """Draw, up to 100 times, until every client has ``min_samples``."""
    for attempt in range(_MAX_DRAWS):
        parts = draw(attempt)
        if min(map(len, parts)) >= settings.min_samples:
            return parts
    raise PartitionError(
        f"none of {_MAX_DRAWS} {what} draws gave each of {num_clients} clients "
        f"{settings.min_samples} of {total} samples: {remedy}, lower min_samples or have fewer "
        "clients"
    )
