"""Facility-location selection: plain (DivFL) and balanced over two functions (BMSFed, Eqs. 10-13).

Both work on :class:`strategies.facility.FacilityLocation`, by stochastic greedy.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .facility import FacilityLocation, Indices

Mask = NDArray[np.bool_]
Role = Literal["multi", "uni"]


@dataclass(frozen=True)
class Pick:
    """One selected client and the numbers behind it.

    Attributes
    ----------
    client : int
        Row index.
    role : {"multi", "uni"}
        Trains all it holds, or the weak modality alone.
    step : int
        Greedy step, from 0; a pair shares one.
    cost_multi, cost_weak : float or None
        G(S_M ∪ {client}) and G(S_M ∪ S_I ∪ {client}) with the sets as they stood at that step
        (Eqs. 12, 13); None for a function that the client could not be chosen by.
    ratio : float
        The client's imbalance ratio; 1 in plain selection, which looks at none.
    candidates : int
        Size of the random candidate set R.
    """

    client: int
    role: Role
    step: int
    cost_multi: float | None
    cost_weak: float | None
    ratio: float
    candidates: int

    def reasons(self) -> dict[str, Any]:
        """Return what was behind the pick, by name."""
        return {k: v for k, v in asdict(self).items() if k != "client"}


def candidate_size(num_clients: int, left: int, n: int) -> int:
    """Return s, how many candidates a greedy step draws (Eq. 4).

    At least ``n`` and a tenth of all clients, at most ⌈(N/n)·ln 100⌉ (stochastic greedy's bound:
    the expected loss is at most 1 % of the optimum) and at most what is left.

    Raises
    ------
    ValueError
        If ``n`` < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: clients per round must be at least 1")
    bound = math.ceil(num_clients / n * math.log(100))
    return min(max(n, -(-num_clients // 10)), bound, left)


def cover_rows(num_clients: int, cover_sample: int, rng: np.random.Generator) -> Indices | None:
    """Return a uniform sample of rows for the sums over k, ascending; None where all are taken.

    Parameters
    ----------
    num_clients : int
        N.
    cover_sample : int
        Size of the sample, >= 1; with N at most this, all rows count.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If ``cover_sample`` < 1.
    """
    if cover_sample < 1:
        raise ValueError(f"cover_sample is {cover_sample}: it must be at least 1")
    if num_clients <= cover_sample:
        return None
    return np.sort(rng.choice(num_clients, size=cover_sample, replace=False))


def balanced_selection(
    multi: FacilityLocation,
    weak: FacilityLocation,
    *,
    holds_weak: Mask,
    holds_other: Mask,
    ratios: NDArray[np.floating[Any]],
    n: int,
    threshold: float,
    rng: np.random.Generator,
    pick: Literal["pair", "single"] = "pair",
    uni_cover: Literal["shared", "uni"] = "shared",
) -> list[Pick]:
    """Select n clients and whether each trains all or only its weak modality (Eqs. 11-13).

    Parameters
    ----------
    multi, weak : FacilityLocation
        G(S_M) and G(S_M ∪ S_I) over the same N clients, both empty; they are filled.
    holds_weak, holds_other : ndarray of bool (N,)
        Whether a client holds the weak modality, and any other. Who holds only the weak one can
        only become a uni-modal pick; who lacks it, only a multi-modal one.
    ratios : ndarray (N,)
        Imbalance ratios ρ^k of the weak modality.
    n : int
        Clients to select, >= 0; all of them if there are fewer.
    threshold : float
        χ of Eq. 13.
    rng : numpy.random.Generator
        Draws the candidate sets.
    pick : {"pair", "single"}
        Up to two clients a step (Eqs. 12, 13), or one: the weak function's choice if its ratio
        exceeds χ, else the multi-modal function's (the published code's rule).
    uni_cover : {"shared", "uni"}
        Whether multi-modal picks cover the weak function too (Eq. 11) or only uni-modal ones do
        (the published code's rule).

    Returns
    -------
    list of Pick
        In the order of picking; no client twice.

    Raises
    ------
    ValueError
        If shapes do not fit, ``n`` is negative, or a ratio or ``threshold`` is NaN.
    """
    arrays = {"holds_weak": holds_weak, "holds_other": holds_other, "ratios": ratios}
    _check_selection(multi, weak, n, threshold, arrays)
    left = np.asarray(holds_weak | holds_other)
    total, step = int(left.sum()), 0
    picks: list[Pick] = []
    while len(picks) < n and left.any():
        drawn = _draw(left, total, n, rng)
        first = multi.best(drawn[holds_other[drawn]])  # k1*, Eq. 12
        second = weak.best(drawn[holds_weak[drawn]])  # k2*, Eq. 13
        if pick == "single":
            enhance = second is not None and bool(ratios[second] > threshold)
            chosen = _single(first, second, enhance)
        else:
            last_place_uni = len(picks) == n - 1 and all(p.role == "multi" for p in picks)
            chosen = _pair(first, second, ratios, holds_other, threshold, last_place_uni)
            chosen = chosen[: n - len(picks)]
        found = [
            Pick(
                client=client,
                role=role,
                step=step,
                cost_multi=_cost_of(multi, client, holds_other),
                cost_weak=_cost_of(weak, client, holds_weak),
                ratio=float(ratios[client]),
                candidates=drawn.size,
            )
            for client, role in chosen
        ]
        for p in found:
            _join(p, multi, weak, uni_cover)
            left[p.client] = False
        picks += found
        step += 1
    return picks


def greedy_selection(cover: FacilityLocation, n: int, rng: np.random.Generator) -> list[Pick]:
    """Select n clients by stochastic greedy on one function (Eq. 4; DivFL).

    Parameters
    ----------
    cover : FacilityLocation
        Over N clients, empty; it is filled.
    n : int
        Clients to select, >= 0; all of them if there are fewer.
    rng : numpy.random.Generator
        Draws the candidate sets.

    Returns
    -------
    list of Pick
        In the order of picking, all of role ``"multi"``.

    Raises
    ------
    ValueError
        If ``n`` is negative.
    """
    _check_selection(cover, cover, n, 0.0, {})
    left = np.ones(cover.num_clients, np.bool_)
    picks: list[Pick] = []
    while len(picks) < n and left.any():
        drawn = _draw(left, left.size, n, rng)
        client = cover.best(drawn)  # Eq. 4
        assert client is not None
        cost = float(cover.costs(np.array([client]))[0])
        picks.append(Pick(client, "multi", len(picks), cost, None, 1.0, drawn.size))
        cover.add(client)
        left[client] = False
    return picks


def _draw(left: Mask, total: int, n: int, rng: np.random.Generator) -> Indices:
    """The candidate set R, in random order: that order breaks ties."""
    remaining = np.flatnonzero(left)
    size = candidate_size(total, remaining.size, n)
    return rng.choice(remaining, size=size, replace=False)


def _pair(
    first: int | None,
    second: int | None,
    ratios: NDArray[np.floating[Any]],
    holds_other: Mask,
    threshold: float,
    last_place_uni: bool,
) -> list[tuple[int, Role]]:
    """Resolve the two functions' choices (Eq. 13); the caller cuts off what has no place."""
    if second is None:
        return [] if first is None else [(first, "multi")]
    if first is None:  # nobody in R holds more than the weak modality
        return [(second, "uni")]
    if first == second:
        return [(first, "multi")]
    enhance = bool(ratios[second] > threshold)
    if enhance and last_place_uni:
        return [(second, "uni")]  # else a small n would never train the weak modality alone
    alone = enhance or not holds_other[second]
    return [(first, "multi"), (second, "uni" if alone else "multi")]


def _single(first: int | None, second: int | None, enhance: bool) -> list[tuple[int, Role]]:
    if second is not None and (enhance or first is None):
        return [(second, "uni")]
    return [] if first is None else [(first, "multi")]


def _cost_of(function: FacilityLocation, client: int, holders: Mask) -> float | None:
    return float(function.costs(np.array([client]))[0]) if holders[client] else None


def _join(p: Pick, multi: FacilityLocation, weak: FacilityLocation, uni_cover: str) -> None:
    if p.role == "multi":
        multi.add(p.client)
    if p.role == "uni" or uni_cover == "shared":
        weak.add(p.client)


def _check_selection(
    first: FacilityLocation,
    second: FacilityLocation,
    n: int,
    threshold: float,
    arrays: dict[str, NDArray[Any]],
) -> None:
    clients = first.num_clients
    if second.num_clients != clients:
        raise ValueError(f"the functions are over {clients} and {second.num_clients} clients")
    if n < 0:
        raise ValueError(f"n is {n}: it must be at least 0")
    for name, array in arrays.items():
        if array.shape != (clients,):
            raise ValueError(f"{name} has shape {array.shape}, expected ({clients},)")
    if math.isnan(threshold) or ("ratios" in arrays and np.isnan(arrays["ratios"]).any()):
        raise ValueError("ratios and threshold must not be NaN")
