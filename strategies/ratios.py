"""Imbalance ratios of many clients, none of which can turn round what all others say.

A score is a sum of probabilities (Eq. 16), and a modality whose features tell nothing still gives
each of K classes a share of 1/K. So a ratio (Eq. 17) lies between 1 and K or little above; what
lies far from that is an error or a lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: Largest ratio that counts, more than any number of classes calls for.
MAX_RATIO = 1000.0

#: Clients among whom one can be told to stand out.
_LEAST = 3


#: No client weighs more than so many times the median of all.
MOST_TIMES = 100


def largest_weight(counts: Sequence[float]) -> float:
    """Return what a client may weigh at most among others: 100 times their (lower) median.

    Parameters
    ----------
    counts : sequence of float
        Samples of all clients; among fewer than three none can be told to stand out.

    >>> largest_weight([10, 12, 1e9]), largest_weight([1, 1e9])
    (1200, inf)
    """
    if len(counts) < _LEAST:
        return float("inf")
    return MOST_TIMES * max(sorted(counts)[(len(counts) - 1) // 2], 1)


def bounded(ratio: float) -> float:
    """Return a positive ratio within [1 / MAX_RATIO, MAX_RATIO].

    >>> bounded(1e12), bounded(1.5)
    (1000.0, 1.5)
    """
    return min(max(ratio, 1 / MAX_RATIO), MAX_RATIO)


def combined(
    ratios: Sequence[float], weights: Sequence[float], factor: float = 10.0, robust: bool = False
) -> float | None:
    """Return the weighted mean of one modality's ratios (Eq. 18) without those that stand out.

    Parameters
    ----------
    ratios, weights : sequence of float
        By client, in a fixed order: float sums depend on it. Weights count up to
        :func:`largest_weight`.
    factor : float, default 10
        Of three ratios and more, those beyond so many times the median, or below it divided by
        this, are left out. 0 leaves out none.
    robust : bool, default False
        Return the median instead, every client one voice.

    Returns
    -------
    float or None
        None where nothing has a weight.

    >>> combined([1.5, 1.5, 1.5, 1000.0], [1, 1, 1, 1])
    1.5
    """
    most = largest_weight(weights)
    weights = [min(w, most) for w in weights]
    if len(ratios) >= _LEAST and (robust or factor):
        middle = float(np.median(ratios))
        if robust:
            return middle
        kept = [
            (r, w)
            for r, w in zip(ratios, weights, strict=True)
            if middle / factor <= r <= middle * factor
        ]
    else:
        kept = list(zip(ratios, weights, strict=True))
    total, weight = 0.0, 0.0
    for r, w in kept:
        total += w * r
        weight += w
    return total / weight if weight > 0 else None


def weakest(ratios: Mapping[str, float]) -> str | None:
    """Return the modality with the largest ratio (of equal ones the first), None if there is none.

    >>> weakest({"audio": 1.0, "visual": 1.5})
    'visual'
    """
    return max(ratios, key=lambda m: ratios[m], default=None)
