"""A metric over the rounds of a run, and its summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bmsfed_app.record.rows import RoundRow, Row
from strategies import Metric

#: Evaluated rounds behind the closing mean.
LAST_ROUNDS = 10


class Summary(Row):
    """Last, best and closing mean of a metric over its evaluated rounds.

    Attributes
    ----------
    last, best : float
        Best by its own maximum, or minimum where the metric says so.
    mean_last : float
        Mean of the last ten.
    rounds : int
        How many these are, where there are fewer.
    """

    last: float
    best: float
    mean_last: float
    rounds: int


def points(
    rounds: Iterable[RoundRow], metric: Metric, modality: str | None = None
) -> list[tuple[int, float]]:
    """Return (round, value) wherever a metric has a finite value, round 0 included."""
    found = []
    for row in rounds:
        value = row.metrics.get(metric.name)
        if metric.by_modality:
            value = value.get(modality) if isinstance(value, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((row.round, value))
    return found


def summary(
    rounds: Iterable[RoundRow], metric: Metric, modality: str | None = None
) -> Summary | None:
    """Summarise a metric, or None if it was never evaluated; the untrained model is left out."""
    values = [value for n, value in points(rounds, metric, modality) if n > 0]
    if not values:
        return None
    last, best = values[-LAST_ROUNDS:], max if metric.best == "max" else min
    return Summary(
        last=values[-1], best=best(values), mean_last=sum(last) / len(last), rounds=len(last)
    )


def summarise(
    rounds: Sequence[RoundRow], metrics: Iterable[Metric]
) -> dict[str, Summary | dict[str, Summary]]:
    """Summarise all metrics that were evaluated, by name, and by modality where they are."""
    found: dict[str, Summary | dict[str, Summary]] = {}
    for metric in metrics:
        if not metric.by_modality:
            if (one := summary(rounds, metric)) is not None:
                found[metric.name] = one
            continue
        names = dict.fromkeys(m for r in rounds for m in r.metrics.get(metric.name) or {})
        each = {m: summary(rounds, metric, m) for m in names}
        if known := {m: s for m, s in each.items() if s is not None}:
            found[metric.name] = known
    return found
