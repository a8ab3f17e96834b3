"""The schemes that draw who has which samples, and the one that follows the natural clients."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bmsfed_app.partitions.base import (
    PARTITIONS,
    Division,
    Indices,
    Names,
    Partition,
    PartitionError,
    Samples,
    rows_by_class,
)
from strategies.randomness import generator

_MAX_DRAWS = 100
_LISTED = 5  # samples that a message names


@PARTITIONS.register("iid")
class Iid(Partition):
    """Uniformly at random; sizes differ by at most one."""

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples; see :class:`Partition`."""
        order = generator(seed, "partition").permutation(len(samples.labels))
        return Division([np.sort(part) for part in np.array_split(order, num_clients)])


@PARTITIONS.register("dirichlet")
class Dirichlet(Partition):
    """Every class by its own shares p ~ Dir(alpha) over the clients (the paper, Sect. 4.1).

    Attributes
    ----------
    alpha : float
        Concentration, above 0; larger is evener.
    """

    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples, drawing up to 100 times until every client has ``min_samples``."""

        def _draw(attempt: int) -> list[Indices]:
            rng = generator(seed, "partition", attempt)
            owner = np.empty(len(samples.labels), dtype=np.int64)
            for rows in rows_by_class(samples.labels):
                shares = rng.dirichlet(np.full(num_clients, self.alpha))
                cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
                sizes = np.diff(cuts, prepend=0, append=len(rows))
                owner[rng.permutation(rows)] = np.repeat(np.arange(num_clients), sizes)
            return _by_owner(owner, num_clients)

        return _redraw(_draw, self, f"raise alpha ({self.alpha:g})", len(samples.labels))


@PARTITIONS.register("quantity")
class Quantity(Partition):
    """Uniformly at random, into sizes that are log-normal (0, sigma), normalised.

    Attributes
    ----------
    sigma : float
        Spread of the sizes' logarithms, at least 0; 0 is even.
    """

    sigma: float = Field(1.0, ge=0, allow_inf_nan=False)

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples, drawing up to 100 times until every client has ``min_samples``."""
        total = len(samples.labels)

        def _draw(attempt: int) -> list[Indices]:
            rng = generator(seed, "partition", "quantity", attempt)
            logs = rng.normal(0, self.sigma, num_clients)
            sizes = apportion(np.exp(logs - logs.max()), total)
            order = rng.permutation(total)
            return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]

        return _redraw(_draw, self, f"lower sigma ({self.sigma:g})", total)


@PARTITIONS.register("pathological")
class Pathological(Partition):
    """To every client samples of exactly ``classes_per_client`` classes.

    The clients draw, one after the other, among the classes with the fewest holders, so the
    numbers of holders differ by at most one; a class's samples are split evenly among its holders.

    Attributes
    ----------
    classes_per_client : int
        Distinct classes of every client, at least 1.
    """

    classes_per_client: int = Field(2, ge=1)

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples, unless a class would have no holder, or a holder no sample."""
        labels, number = samples.labels, self.classes_per_client
        classes, sizes = np.unique(labels, return_counts=True)
        if number > len(classes):
            raise PartitionError(
                f"classes_per_client: {number} of {len(classes)} classes; lower it"
            )
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
        return Division(_by_owner(owner, num_clients))

    def detail(self) -> str:
        """Say how many classes a client has."""
        return f"{self.classes_per_client} classes per client"


@PARTITIONS.register("natural")
class Natural(Partition):
    """By natural clients, named as they are; whole ones are grouped where fewer clients are wanted.

    Owners are grouped largest first, each into the smallest group so far. Nothing is drawn. They
    are only grouped where the experiment says how many ``clients`` it is to have.
    """

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples of data that knows at least ``num_clients`` natural clients."""
        owners, named = _natural(samples)
        if num_clients > len(named):
            raise PartitionError(
                f"{num_clients} clients of {len(named)} natural ones: have at most {len(named)} "
                "clients or another partition"
            )
        if num_clients < len(named) and not self.clients:
            raise PartitionError(
                f"{len(named)} natural clients, but a federation of {num_clients}: start it with "
                f"num-supernodes={len(named)}, or group them by clients={num_clients}"
            )
        place = np.searchsorted(named, owners)
        if num_clients == len(named):
            return Division(_by_owner(place, num_clients), safe_names([str(n) for n in named]))
        sizes = np.bincount(place, minlength=len(named))
        groups = [(0, group) for group in range(num_clients)]
        group_of = np.empty(len(named), dtype=np.int64)
        for owner in np.argsort(-sizes, kind="stable"):
            size, group = groups[0]
            group_of[owner] = group
            heapq.heapreplace(groups, (size + int(sizes[owner]), group))
        return Division(_by_owner(group_of[place], num_clients))

    def own_clients(self, samples: Samples) -> int:
        """Count the natural clients."""
        return len(_natural(samples)[1])


def _natural(samples: Samples) -> tuple[Names, Names]:
    """Return each sample's natural client, and all of them, each once."""
    owners, named = samples.owners, samples.natural
    if owners is None or named is None or not any(np.char.strip(named)):
        raise PartitionError(
            "partition: natural needs data that knows its natural clients (talkers, subjects, "
            "events); this data set does not: choose another partition"
        )
    if (nameless := np.flatnonzero(np.char.strip(owners) == "")).size:
        known = samples.rows.astype(np.str_) if samples.ids is None else samples.ids[samples.rows]
        listed = ", ".join(known[nameless[:_LISTED]]) + (", ..." if len(nameless) > _LISTED else "")
        raise PartitionError(
            f"partition: natural, but {len(nameless)} of {len(owners)} training samples name no "
            f"client ({listed}): name their clients, leave them out, or choose another partition"
        )
    return owners, named


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


def _by_owner(owner: NDArray[np.int64], num_clients: int) -> list[Indices]:
    """Return each client's rows, ascending, from every row's client."""
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=num_clients)
    return np.split(order, np.cumsum(sizes)[:-1])


def _redraw(
    draw: Callable[[int], list[Indices]],
    partition: Partition,
    remedy: str,
    total: int,
) -> Division:
    """Draw, up to 100 times, until every client has ``min_samples``."""
    for attempt in range(_MAX_DRAWS):
        parts = draw(attempt)
        if min(map(len, parts)) >= partition.min_samples:
            return Division(parts)
    raise PartitionError(
        f"none of {_MAX_DRAWS} {partition.partition} draws gave each of {len(parts)} clients "
        f"{partition.min_samples} of {total} samples: {remedy}, lower min_samples or have fewer "
        "clients"
    )
