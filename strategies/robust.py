"""Ways to merge what clients trained that a few bad clients cannot turn round.

A rule works on one part of the model at a time (an encoder, the head's columns of a modality, what
of the head all share; a batch norm's statistics by themselves), over the clients that trained it.
It is either :class:`ByCoordinate`, which merges the clients' values number by number, or
:class:`ByPart`, which says by the whole part's changes how much of whom is taken.

With fewer than three trainers of a part, nobody can be outvoted: rules help nothing there.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ranges import Parameter

log = logging.getLogger("flwr")

#: Numbers of one client that are merged at a time.
_BLOCK = 1 << 14

Floats = NDArray[np.float64]

TRIM = Parameter(0.2, ge=0, lt=0.5)
FACTOR = Parameter(1.0, gt=0)
BAD = Parameter(1, ge=0)
AVERAGED = Parameter(0, ge=0)


class ByCoordinate(ABC):
    """A rule that merges each number by itself."""

    @abstractmethod
    def combine(self, values: Floats, weights: Floats) -> Floats:
        """Merge numbers.

        Parameters
        ----------
        values : array (n, d)
            A row for each of n clients, by client id.
        weights : array (n,)
            Their sample counts.

        Returns
        -------
        array (d,)
        """


class ByPart(ABC):
    """A rule that looks at the clients' changes of a whole part: ``new = old + sum_k c_k u_k``."""

    @abstractmethod
    def shares(self, products: Floats, weights: Floats) -> Floats:
        """Say how much of each client's change is taken.

        Parameters
        ----------
        products : array (n, n)
            Inner products of the changes u_k of n clients, by client id.
        weights : array (n,)
            Their sample counts.

        Returns
        -------
        array (n,)
            c_k.
        """

    def instead(self, trainers: int) -> ByCoordinate | None:
        """Return the rule that stands in where a part has too few trainers, or None."""
        return None


#: How a part is merged; None stands for the mean weighted by sample counts.
Rule = ByCoordinate | ByPart


class Median(ByCoordinate):
    """The median of each number, every client one voice (Yin et al. 2018, Algorithm 1)."""

    def combine(self, values: Floats, weights: Floats) -> Floats:
        """Return the middle value, or the mean of the two in the middle."""
        return np.asarray(np.median(values, axis=0))


class TrimmedMean(ByCoordinate):
    """The mean of each number without its largest and smallest (Yin et al. 2018, Definition 2).

    Parameters
    ----------
    trim : float, default 0.2
        Share of the trainers left out at each end, in [0, 0.5), rounded up as far as one or two
        stay: what may be bad. 0 is the mean.

    Raises
    ------
    ValueError
        If ``trim`` is out of range.

    Those that stay are weighted by samples, where the paper's clients have equally many; of equal
    numbers the first by client id go first.
    """

    def __init__(self, *, trim: float = TRIM.default) -> None:
        TRIM.check("trim", trim)
        self.trim = trim

    def combine(self, values: Floats, weights: Floats) -> Floats:
        """Return the weighted mean of what stays of each column."""
        n = len(values)
        cut = min(math.ceil(round(self.trim * n, 9)), (n - 1) // 2)
        if not cut:
            return np.asarray(np.einsum("k,kd->d", weights / weights.sum(), values))
        order = np.argsort(values, axis=0, kind="stable")[cut : n - cut]
        kept = weights[order]
        return np.asarray((np.take_along_axis(values, order, 0) * kept).sum(0) / kept.sum(0))


class NormClip(ByPart):
    """The mean of changes whose norm is at most a bound (Sun et al. 2019, section 4).

    Parameters
    ----------
    factor : float, default 1
        The bound in multiples of the median norm of the round's changes, above 0. The paper's is
        one number for all rounds, which has to be known beforehand.

    Raises
    ------
    ValueError
        If ``factor`` is not above 0.
    """

    def __init__(self, *, factor: float = FACTOR.default) -> None:
        FACTOR.check("factor", factor)
        self.factor = factor

    def shares(self, products: Floats, weights: Floats) -> Floats:
        """Return the clients' shares of the samples, less what is beyond the bound."""
        norms = np.sqrt(np.diag(products))
        bound = self.factor * np.median(norms)
        clipped = np.divide(bound, norms, out=np.ones_like(norms), where=norms > bound)
        return np.asarray(weights / weights.sum() * clipped)


class Krum(ByPart):
    """Multi-Krum: the clients whose changes lie nearest to each other (Blanchard et al. 2017).

    A client's score is the sum of its squared distances to its ``n - bad - 2`` nearest of n; the
    ``m`` with the smallest are averaged by samples (of equal scores, the first by client id).
    A part with fewer than ``2 bad + 3`` trainers takes the median, and the log says so once.

    Parameters
    ----------
    bad : int, default 1
        Clients a round that may be bad, at least 0.
    m : int, default 0
        Clients that are averaged, at least 0; 1 is Krum, and 0 are ``n - bad``.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(self, *, bad: int = BAD.default, m: int = AVERAGED.default) -> None:
        BAD.check("bad", bad)
        AVERAGED.check("m", m)
        self.bad, self.m = bad, m
        self._told = False

    def shares(self, products: Floats, weights: Floats) -> Floats:
        """Return the shares of the samples among the chosen, 0 for the others."""
        chosen = self.chosen(products)
        kept = np.zeros_like(weights)
        kept[chosen] = weights[chosen]
        return np.asarray(kept / kept.sum())

    def chosen(self, products: Floats) -> list[int]:
        """Return who is averaged, in order."""
        n = len(products)
        square = np.diag(products)
        distances = np.maximum(square[:, None] + square[None, :] - 2 * products, 0.0)
        np.fill_diagonal(distances, np.inf)
        nearest = np.sort(distances, axis=1)[:, : n - self.bad - 2]
        best = np.argsort(nearest.sum(axis=1), kind="stable")
        return sorted(int(k) for k in best[: min(self.m or n - self.bad, n)])

    def instead(self, trainers: int) -> ByCoordinate | None:
        """Return the median where nobody could be outvoted."""
        least = 2 * self.bad + 3
        if trainers >= least:
            return None
        if not self._told and trainers > 1:
            self._told = True
            log.warning(
                "krum needs %d trainers of a part to bear %d bad ones; parts that fewer trained "
                "(now %d) take the median",
                *(least, self.bad, trainers),
            )
        return Median()


# --- applied to arrays ----------------------------------------------------------------------


def merge(
    rule: Rule,
    old: Sequence[NDArray[Any]],
    trained: Sequence[Sequence[NDArray[Any]]],
    weights: Sequence[float],
) -> list[NDArray[Any]]:
    """Merge the float arrays of one part.

    Parameters
    ----------
    rule : Rule
    old : sequence of array
        The part as it was.
    trained : sequence of sequence of array
        For each client, the same arrays as it trained them.
    weights : sequence of float
        The clients' sample counts, positive in sum.

    Returns
    -------
    list of array
        The new part, of the types of the old.
    """
    shares = np.asarray(weights, np.float64)
    if isinstance(rule, ByPart):
        if (median := rule.instead(len(trained))) is None:
            taken = rule.shares(_products(old, trained), shares)
            columns = zip(old, zip(*trained, strict=True), strict=True)
            return [_blocked(_Added(taken), was, values) for was, values in columns]
        rule = median
    by_coordinate = rule
    columns = zip(old, zip(*trained, strict=True), strict=True)
    return [
        _blocked(lambda _, v: by_coordinate.combine(v, shares), was, values)
        for was, values in columns
    ]


def middle(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the lower median of integers (batches counted), of their type."""
    return np.asarray(np.sort(np.stack(values), axis=0)[(len(values) - 1) // 2])


class _Added:
    """Adds changes to what was."""

    def __init__(self, shares: Floats) -> None:
        self.shares = shares
        self.taken = shares != 0

    def __call__(self, old: Floats, values: Floats) -> Floats:
        changes = values[self.taken] - old
        return np.asarray(old + np.einsum("k,kd->d", self.shares[self.taken], changes))


def _blocked(combine: Any, old: NDArray[Any], values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Merge one array block by block: never all clients' arrays in float64 at once."""
    flat, before = [np.ravel(v) for v in values], np.ravel(old)
    new = np.empty(before.size, before.dtype)
    stack = np.empty((len(flat), min(_BLOCK, new.size)))
    for start in range(0, new.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        width = len(before[block])
        for row, value in zip(stack, flat, strict=True):
            row[:width] = value[block]
        new[block] = combine(before[block].astype(np.float64), stack[:, :width])
    return new.reshape(old.shape)


def _products(old: Sequence[NDArray[Any]], trained: Sequence[Sequence[NDArray[Any]]]) -> Floats:
    """Inner products (n, n) of the clients' changes of a part."""
    total = np.zeros((len(trained), len(trained)))
    for place, was in enumerate(old):
        before, flat = np.ravel(was), [np.ravel(arrays[place]) for arrays in trained]
        changes = np.empty((len(flat), min(_BLOCK, before.size)))
        for start in range(0, before.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            width = len(before[block])
            for row, value in zip(changes, flat, strict=True):
                np.subtract(value[block], before[block], out=row[:width], dtype=np.float64)
            total += changes[:, :width] @ changes[:, :width].T
    return total
