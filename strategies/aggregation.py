"""Merging what clients trained, part by part (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import robust
from .changes import is_float, is_statistic
from .messages import Arrays, Update, owner
from .ratios import MAX_RATIO

#: Numbers that are averaged at a time: two arrays of them in float64 stay in a core's cache, where
#: whole models of many clients would go through memory several times over.
_BLOCK = 1 << 16


def weighted_mean(values: Sequence[NDArray[Any]], weights: Sequence[float]) -> NDArray[Any]:
    """Return ``sum_k q_k value_k`` with ``q_k = weight_k / sum(weights)``.

    Floats are summed in float64 in the given order and come back in their own type. Integers
    (batch-norm counters) take the maximum: a mean of counters has no meaning.

    Raises
    ------
    ValueError
        If the weights do not sum to a positive number.
    """
    total = float(sum(weights))
    if not total > 0:
        raise ValueError(f"the weights of {len(values)} arrays sum to {total}, not to more than 0")
    if not np.issubdtype(values[0].dtype, np.floating):
        return np.asarray(np.maximum.reduce(list(values)))
    flat = [(np.ravel(v), w / total) for v, w in zip(values, weights, strict=True)]
    mean = np.empty(values[0].size, values[0].dtype)
    sums, part = np.empty((2, min(_BLOCK, mean.size)))
    for start in range(0, mean.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        mean[block] = _weighted_sum([(v[block], q) for v, q in flat], sums, part)
    return mean.reshape(values[0].shape)


def _weighted_sum(
    values: Sequence[tuple[NDArray[Any], float]],
    sums: NDArray[np.float64],
    part: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum vectors (b,) times their shares, in this order; uses two vectors of at least b."""
    size = values[0][0].size
    sums, part = sums[:size], part[:size]
    sums[:] = 0.0
    for value, share in values:
        part[:] = value
        part *= share
        sums += part
    return sums


def imbalance_ratios(scores: Mapping[str, float]) -> dict[str, float]:
    """Return ``rho_m = max_m' s_m' / s_m`` for every modality (Eq. 17 for the weak one of two).

    At most :data:`strategies.ratios.MAX_RATIO`.

    >>> imbalance_ratios({"audio": 0.8, "visual": 0.2})
    {'audio': 1.0, 'visual': 4.0}
    """
    best = max(scores.values(), default=1.0)
    return {m: min(best / s, MAX_RATIO) for m, s in scores.items()}


def sample_counts(name: str, trainers: Sequence[Update]) -> list[float]:
    """Return the trainers' sample counts: of a modality's arrays, of samples that have it."""
    return [float(u.samples(owner(name))) for u in trainers]


def aggregate_parts(
    current: Arrays,
    updates: Sequence[Update],
    head_columns: Literal["own", "all"] = "own",
    weigh: Callable[[str, Sequence[Update]], Sequence[float]] = sample_counts,
    rule: robust.Rule | None = None,
) -> Arrays:
    """Merge every array over exactly those clients that trained it.

    Parameters
    ----------
    current : dict
        The global model; an array that nobody trained is returned as it is.
    updates : sequence of Update
        What came back, any subset of the arrays each.
    head_columns : {"own", "all"}
        ``"own"``: the head's columns of a modality are averaged over the clients that trained
        the modality. ``"all"``: over everyone, where a client that did not train the modality
        counts with the columns it was sent, and so pulls them back (the published code's rule).
    weigh : callable
        Returns the weights of an array's trainers, which come sorted by client id; clients
        without samples never come.
    rule : Rule, optional
        One of :mod:`strategies.robust`; by default the weighted mean. Of integers a rule takes
        the median.

    Returns
    -------
    dict
        The new global model, with the keys of ``current``.
    """
    counted = [u for u in updates if u.num_samples > 0]
    counted.sort(key=lambda u: u.client_id)  # float sums depend on the order
    trainers = {name: _trainers(name, counted, head_columns) for name in current}
    if rule is not None:
        return _merged(current, trainers, weigh, rule)
    new: Arrays = {}
    for name, old in current.items():
        values = [u.arrays.get(name, old) for u in trainers[name]]
        new[name] = weighted_mean(values, weigh(name, trainers[name])) if values else old
    return new


def _trainers(
    name: str, counted: Sequence[Update], head_columns: Literal["own", "all"]
) -> Sequence[Update]:
    """Return whose values of an array count."""
    trainers = [u for u in counted if name in u.arrays]
    of_columns = owner(name) and not name.startswith("encoders.")
    return counted if trainers and head_columns == "all" and of_columns else trainers


def _merged(
    current: Arrays,
    trainers: Mapping[str, Sequence[Update]],
    weigh: Callable[[str, Sequence[Update]], Sequence[float]],
    rule: robust.Rule,
) -> Arrays:
    """Merge by a rule: part by part, what the same clients trained of it together."""
    parts: dict[tuple[object, ...], list[str]] = {}
    new = dict(current)
    for name, old in current.items():
        who = trainers[name]
        if who and is_float(old):
            scope, statistic = name.partition(".")[0], is_statistic(name)
            key = scope, owner(name), statistic, *(u.client_id for u in who)
            parts.setdefault(key, []).append(name)
        elif who:
            new[name] = robust.middle([u.arrays.get(name, old) for u in who])
    for names in parts.values():
        who, old_part = trainers[names[0]], [current[n] for n in names]
        trained = [[u.arrays.get(n, current[n]) for n in names] for u in who]
        merged = robust.merge(rule, old_part, trained, weigh(names[0], who))
        new |= dict(zip(names, merged, strict=True))
    return new
