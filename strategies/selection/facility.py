"""The facility-location function over client signatures, without an N x N matrix (Eq. 3).

The distances from candidates to the covered clients come from one matrix product, are kept up to
a byte limit, and a candidate is looked at again only while its earlier gain, an upper bound by
submodularity, still lets it win.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]

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
    def standard_error(self) -> float:
        """Standard error of the cost as an estimate from a sample of rows; 0 where all count.

        Of the sum over the sampled rows, with the finite-population correction.
        """
        sampled, clients = self._rows.size, self.num_clients
        if sampled in (0, clients) or not math.isfinite(self._cost):
            return 0.0
        spread = float(self._nearest.std(dtype=np.float64))
        return spread * math.sqrt(sampled * (1 - sampled / clients))

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
