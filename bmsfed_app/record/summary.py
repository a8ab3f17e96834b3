"""A metric over the rounds of a run, and its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bmsfed_app.record.rows import RoundRow, Row
from strategies import Metric

#: Rounds behind the closing mean, evaluated or not.
LAST_ROUNDS = 10


class Summary(Row):
    """Where a metric ended. No best: a maximum over the test set is no result.

    Attributes
    ----------
    last : float
        After the last round that was evaluated.
    mean_last : float
        Mean over the evaluations among the last ten rounds, up to and with that one.
    rounds : list of int
        The rounds of these evaluations.
    """

    last: float
    mean_last: float
    rounds: list[int]

    def over(self) -> str:
        """Say what the mean is over, as in "rounds 31-40 (3 evaluations)"."""
        first, last, count = self.rounds[0], self.rounds[-1], len(self.rounds)
        return (
            f"round {last} (1 evaluation)"
            if count == 1
            else f"rounds {first}-{last} ({count} evaluations)"
        )


def points(
    rounds: Iterable[RoundRow], metric: Metric, modality: str | None = None
) -> list[tuple[int, float]]:
    """Return (round, value) wherever a metric was evaluated, round 0 included.

    A value may be NaN or infinite, as the loss of a run that diverged.
    """
    found = []
    for row in rounds:
        value = row.metrics.get(metric.name)
        if metric.by_modality:
            value = value.get(modality) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append((row.round, value))
    return found


def summary(
    rounds: Iterable[RoundRow], metric: Metric, modality: str | None = None
) -> Summary | None:
    """Summarise a metric, or None if it was never evaluated; the untrained model is left out."""
    values = {n: value for n, value in points(rounds, metric, modality) if n > 0}
    if not values:
        return None
    end = max(values)
    late = {n: value for n, value in sorted(values.items()) if n > end - LAST_ROUNDS}
    return Summary(last=values[end], mean_last=sum(late.values()) / len(late), rounds=list(late))


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
