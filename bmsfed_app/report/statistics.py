"""What is said of methods that were run on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from scipy.stats import permutation_test, rankdata

#: Seeds up to which all sign flips are looked at: 2^16 of them.
_EXACT = 16


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval (Student t).

    The half width of a single value is NaN, as where a value is not finite: the mean is then NaN or
    infinite as well.
    """
    n = len(values)
    with np.errstate(invalid="ignore"):  # of infinite ones
        mean = float(np.mean(values))
        if n < 2:
            return mean, math.nan
        half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, half


class Difference(NamedTuple):
    """A method less another, over the seeds that both were run on.

    Attributes
    ----------
    mean, half : float
        With the half width of its 95 % interval; see :func:`mean_and_interval`.
    p : float
        Of the two-sided sign-flip test; 1 for one seed. NaN where a difference is not finite.
    n : int
        Seeds.
    """

    mean: float
    half: float
    p: float
    n: int


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two methods by the seeds that both have; None if there is none.

    Parameters
    ----------
    ours, theirs : mapping
        A value by seed.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = [ours[s] - theirs[s] for s in seeds]
    return Difference(*mean_and_interval(differences), sign_flip(differences), len(seeds))


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of the sign-flip test of a mean of zero.

    Exact up to 16 values: the share of all 2^n choices of signs whose mean is as far from zero, so
    that p is at least 2^(1-n); of 65,536 random ones beyond. NaN where a value is not finite.
    """
    if not all(map(math.isfinite, differences)):
        return math.nan
    if len(differences) < 2:
        return 1.0
    values = np.asarray(differences, float)
    if not values.any():
        return 1.0
    found = permutation_test(
        (values,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=2**_EXACT,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several, in the same order (Holm, 1979)."""
    order = np.argsort(ps, kind="stable")
    weighted = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(weighted), 1.0)
    found = np.empty(len(ps))
    found[order] = adjusted
    return [float(p) for p in found]


def mean_ranks(table: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Return the mean rank of each method, 1 being the best.

    Parameters
    ----------
    table : mapping
        By method a value for each column, the larger the better; None where there is none. Equal
        values share their ranks; those that are not finite share the last.

    Returns
    -------
    dict
        Of the methods that have a value in every column: others were ranked among fewer.
    """
    complete = {m: v for m, v in table.items() if v and None not in v}
    if not complete:
        return {}
    values = np.array(
        [
            [x if x is not None and math.isfinite(x) else -math.inf for x in v]
            for v in complete.values()
        ]
    )
    ranks = rankdata(-values, axis=0).mean(axis=1)
    return dict(zip(complete, map(float, ranks), strict=True))
