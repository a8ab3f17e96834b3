"""Facility-location selection: plain (DivFL) and balanced over two functions (BMSFed, Eqs. 10-13).

No N x N matrix is ever made. The distances from candidates to the covered clients come from one
matrix product, are kept up to a byte limit, and a candidate is looked at again only while its
earlier gain, an upper bound by submodularity, still lets it win.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Role = Literal["multi", "uni"]

FLOAT64_CLIENTS = 5_000  # beyond, single precision halves memory and time
BLOCK_BYTES = 4 << 20  # distances worked on at a time: what a core's cache holds
SLAB_BYTES = 256 << 20  # covered signatures held at a time, centred
LAZY_BATCH = 64  # candidates looked at again per matrix product


class FacilityLocation:
    """Cost G(S) = Σ_k min_{i∈S} ‖g_k − g_i‖ of a growing set S of clients (Eq. 3).

    Parameters
    ----------
    signatures : ndarray (N, d), float32 or float64
        One row per client. Kept, not copied: do not change it while in use.
    cover : ndarray of int, optional
        The rows k that the sum runs over, (K,); all N by default.
    cache_bytes : int, default 512 MiB
        Limit of the columns that are kept; one column is K distances. More are recomputed.

    Attributes
    ----------
    resolution : float
        Costs closer than this count as tied: 1e-9 of Σ_k ‖g_k − mean‖ (1e-6 in single
        precision), which is what rounding may move.

    Raises
    ------
    ValueError
        If shapes, types or rows are wrong, or a signature that is needed is not finite.
    """

    def __init__(
        self,
        signatures: Floats,
        cover: NDArray[np.integer[Any]] | None = None,
        cache_bytes: int = 512 << 20,
    ) -> None:
        _check_signatures(signatures, cover, cache_bytes)
        clients, length = signatures.shape
        self._signatures = signatures
        self._rows = np.arange(clients) if cover is None else np.asarray(cover, dtype=np.intp)
        single = clients > FLOAT64_CLIENTS
        self._dtype: np.dtype[Any] = np.dtype(np.float32 if single else np.float64)
        covered, item = max(1, self._rows.size), self._dtype.itemsize
        self._block = max(32, BLOCK_BYTES // (covered * item))
        width = max(1, SLAB_BYTES // (item * max(covered, min(self._block, clients))))
        self._slabs = [slice(lo, min(lo + width, length)) for lo in range(0, length, width)]
        self._mean = self._mean_signature(cover)
        self._whole: Floats | None = None  # centred covered rows, where one slab holds them
        self._squares = self._cover_squares()
        self.resolution = (1e-6 if single else 1e-9) * float(np.sqrt(self._squares).sum())
        self._nearest = np.full(self._rows.size, np.inf, self._dtype)  # min over S, per k
        self._cost = math.inf
        self._gains = np.full(clients, np.inf)  # upper bounds: a gain never grows with S
        self._slots = np.full(clients, -1, np.intp)
        self._capacity = min(clients, cache_bytes // (covered * item))
        self._columns_kept: Floats | None = None
        self._used = 0

    @property
    def cost(self) -> float:
        """G(S) now; infinite while S is empty."""
        return self._cost

    @property
    def num_clients(self) -> int:
        """N, the number of rows."""
        return int(self._signatures.shape[0])

    def costs(self, candidates: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return G(S ∪ {c}) for each candidate c (Eq. 3).

        Parameters
        ----------
        candidates : ndarray of int (s,)
            Row indices.

        Returns
        -------
        ndarray (s,), float64

        Raises
        ------
        ValueError
            If a candidate's signature is not finite.
        """
        clients: Indices = np.asarray(candidates, dtype=np.intp)
        values = np.empty(clients.size)
        # Kept columns first, so that the missing ones share matrix products.
        order = np.argsort(self._slots[clients] < 0, kind="stable")
        for lo in range(0, order.size, self._block):
            at = order[lo : lo + self._block]
            block = self._columns(clients[at])
            np.minimum(block, self._nearest, out=block)
            values[at] = block.sum(axis=1, dtype=np.float64)
        if math.isfinite(self._cost):
            self._gains[clients] = self._cost - values
        return values

    def best(self, candidates: NDArray[np.integer[Any]]) -> int | None:
        """Return the candidate of lowest G(S ∪ {c}), the earliest of tied ones; None if none.

        A candidate seen before is looked at again only if its earlier gain could win: gains
        never grow (submodularity), so ``cost - earlier gain`` is a lower bound of its cost.
        """
        candidates = np.asarray(candidates, dtype=np.intp)
        if candidates.size == 0:
            return None
        values = np.full(candidates.size, np.inf)
        bounds = self._gains[candidates]
        fresh = np.flatnonzero(np.isinf(bounds))
        values[fresh] = self.costs(candidates[fresh])
        stale = np.flatnonzero(np.isfinite(bounds))
        stale = stale[np.argsort(-bounds[stale], kind="stable")]
        for lo in range(0, stale.size, LAZY_BATCH):
            at = stale[lo : lo + LAZY_BATCH]
            # Twice: once for candidates that tie, once for rounding of the earlier gain.
            if self._cost - bounds[at[0]] > values.min() + 2 * self.resolution:
                break
            values[at] = self.costs(candidates[at])
        return int(candidates[np.argmax(values <= values.min() + self.resolution)])

    def add(self, client: int) -> None:
        """Add a client (a row index) to S."""
        column = self._columns(np.array([client], dtype=np.intp))[0]
        np.minimum(self._nearest, column, out=self._nearest)
        self._cost = float(self._nearest.sum(dtype=np.float64))

    def _columns(self, clients: Indices) -> Floats:
        """Distances of clients (b,) to the covered rows, (b, K), from the cache or computed."""
        slots = self._slots[clients]
        kept = slots >= 0
        if self._columns_kept is not None and kept.all():
            return self._columns_kept[slots]
        if not kept.any():
            block = self._distances(clients)
        else:
            assert self._columns_kept is not None
            block = np.empty((clients.size, self._rows.size), self._dtype)
            block[kept] = self._columns_kept[slots[kept]]
            block[~kept] = self._distances(clients[~kept])
        self._keep(clients[~kept], block, np.flatnonzero(~kept))
        return block

    def _keep(self, clients: Indices, block: Floats, at: Indices) -> None:
        room = min(self._capacity - self._used, clients.size)
        if room <= 0:
            return
        if self._columns_kept is None:
            # Untouched pages cost nothing: memory grows with use up to the limit.
            self._columns_kept = np.empty((self._capacity, self._rows.size), self._dtype)
        slots = np.arange(self._used, self._used + room)
        self._columns_kept[slots[0] : slots[0] + room] = block[at[:room]]
        self._slots[clients[:room]] = slots
        self._used += room

    def _distances(self, clients: Indices) -> Floats:
        """‖g_k − g_i‖ for clients i (b,) and covered rows k, (b, K), by one product a slab."""
        products: Floats = np.zeros((clients.size, self._rows.size), self._dtype)
        squares = np.zeros(clients.size)
        for slab, covered in self._covered():
            block = self._centred(clients, slab)
            squares += _row_squares(block)
            if self._whole is None:
                products += block @ covered.T
            else:
                np.matmul(block, covered.T, out=products)
        if not np.isfinite(squares).all():
            bad = int(clients[np.flatnonzero(~np.isfinite(squares))[0]])
            raise ValueError(f"the signature in row {bad} is not finite: leave that client out")
        products *= -2.0
        products += self._squares.astype(self._dtype)
        products += squares.astype(self._dtype)[:, None]  # ‖a‖² + ‖b‖² − 2ab
        # Below this only rounding is left: equal signatures are at distance 0, so that ties stay
        # ties. Near-equal rows have near-equal norms, hence one limit per client suffices.
        noise = 8 * np.finfo(self._dtype).eps * math.sqrt(self._signatures.shape[1]) * squares
        products *= products > noise.astype(self._dtype)[:, None]
        np.sqrt(products, out=products)
        return products

    def _centred(self, rows: Indices, slab: slice) -> Floats:
        # Distances do not change, but without the common part ‖a‖² + ‖b‖² − 2ab cancels less.
        block: Floats = self._signatures[rows, slab] - self._mean[slab]
        return block.astype(self._dtype, copy=False)

    def _covered(self) -> Iterator[tuple[slice, Floats]]:
        for slab in self._slabs:
            yield slab, self._centred(self._rows, slab) if self._whole is None else self._whole

    def _mean_signature(self, cover: NDArray[np.integer[Any]] | None) -> Floats:
        rows = self._signatures if cover is None else self._signatures[self._rows]
        if rows.shape[0] == 0:
            return np.zeros(rows.shape[1], self._dtype)
        kind = np.result_type(self._dtype, self._signatures.dtype)
        mean: Floats = rows.mean(axis=0, dtype=np.float64).astype(kind)
        return mean

    def _cover_squares(self) -> NDArray[np.float64]:
        squares = np.zeros(self._rows.size)
        block: Floats | None = None
        for _, block in self._covered():
            squares += _row_squares(block)
        if len(self._slabs) == 1:
            self._whole = block
        if not np.isfinite(squares).all():
            finite = [bool(np.isfinite(self._signatures[r]).all()) for r in self._rows]
            bad = [int(r) for r, good in zip(self._rows, finite, strict=True) if not good][:5]
            raise ValueError(f"signatures in rows {bad} are not finite: leave those clients out")
        return squares


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
    eligible: Mask | None = None,
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
        Clients to select, >= 0; all eligible ones if there are fewer.
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
    eligible : ndarray of bool (N,), optional
        Who may be selected; everyone by default. The sums still run over all covered rows.

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
    _check_selection(multi, weak, n, threshold, arrays, eligible)
    left = np.asarray(holds_weak | holds_other)
    left = left.copy() if eligible is None else left & eligible
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


def greedy_selection(
    cover: FacilityLocation,
    n: int,
    rng: np.random.Generator,
    eligible: Mask | None = None,
) -> list[Pick]:
    """Select n clients by stochastic greedy on one function (Eq. 4; DivFL).

    Parameters
    ----------
    cover : FacilityLocation
        Over N clients, empty; it is filled.
    n : int
        Clients to select, >= 0; all eligible ones if there are fewer.
    rng : numpy.random.Generator
        Draws the candidate sets.
    eligible : ndarray of bool (N,), optional
        Who may be selected; everyone by default.

    Returns
    -------
    list of Pick
        In the order of picking, all of role ``"multi"``.

    Raises
    ------
    ValueError
        If ``n`` is negative or ``eligible`` has another shape.
    """
    _check_selection(cover, cover, n, 0.0, {}, eligible)
    left = np.ones(cover.num_clients, np.bool_) if eligible is None else eligible.copy()
    total = int(left.sum())
    picks: list[Pick] = []
    while len(picks) < n and left.any():
        drawn = _draw(left, total, n, rng)
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


def _row_squares(block: Floats) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return squares


def _check_signatures(
    signatures: Floats, cover: NDArray[np.integer[Any]] | None, cache_bytes: int
) -> None:
    if signatures.ndim != 2 or signatures.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"signatures are {signatures.dtype} {signatures.shape}: "
            "one float32 or float64 row per client is needed"
        )
    if cache_bytes < 0:
        raise ValueError(f"cache_bytes is {cache_bytes}: it must be at least 0")
    clients = signatures.shape[0]
    if cover is not None and (cover.ndim != 1 or np.any((cover < 0) | (cover >= clients))):
        raise ValueError(f"cover must be a list of rows from 0 to {clients - 1}")


def _check_selection(
    first: FacilityLocation,
    second: FacilityLocation,
    n: int,
    threshold: float,
    arrays: dict[str, NDArray[Any]],
    eligible: Mask | None,
) -> None:
    clients = first.num_clients
    if second.num_clients != clients:
        raise ValueError(f"the functions are over {clients} and {second.num_clients} clients")
    if n < 0:
        raise ValueError(f"n is {n}: it must be at least 0")
    given = arrays if eligible is None else {**arrays, "eligible": eligible}
    for name, array in given.items():
        if array.shape != (clients,):
            raise ValueError(f"{name} has shape {array.shape}, expected ({clients},)")
    if math.isnan(threshold) or ("ratios" in arrays and np.isnan(arrays["ratios"]).any()):
        raise ValueError("ratios and threshold must not be NaN")
