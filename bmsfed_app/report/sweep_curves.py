"""A run's numbers round by round, as a sweep's figures show them and ``curves.csv`` keeps them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from bmsfed_app.record.run import Run
from bmsfed_app.record.summary import points
from bmsfed_app.report.figures import selection_counts
from strategies import Metric

#: A report's file with a line for every run and round.
NAME = "curves.csv"

#: Values by round.
Points = dict[int, float]
#: By name: metrics by those of columns ("accuracy_by_modality.gray"), and the two below.
Curves = dict[str, Points]

#: The global imbalance ratio of the weak modality (Eq. 18).
RATIO = "imbalance_ratio"
#: The share of the clients selected that train fewer modalities than they hold, in percent.
TRAIN_LESS = "train_less"

#: Rounds over which that share is averaged: few clients are selected in one.
WINDOW = 5

_KEYS = ("folder", "started", "round")


def curves_of(run: Run, metrics: Mapping[str, tuple[Metric, str | None]]) -> Curves:
    """Return what a run came to round by round, as readers see it (shares in percent).

    Parameters
    ----------
    run : Run
    metrics : mapping
        A metric and its modality, if any, by the column's name.
    """
    found = {
        name: {n: metric.shown(v) for n, v in points(run.rounds, metric, modality)}
        for name, (metric, modality) in metrics.items()
    }
    found |= {RATIO: largest_ratios(run), TRAIN_LESS: shares_alone(run)}
    return {name: by_round for name, by_round in found.items() if by_round}


def largest_ratios(run: Run) -> Points:
    """Return the global imbalance ratio of the weak modality, by round (Eq. 18)."""
    return {r.round: max(r.ratio.values()) for r in run.rounds if r.ratio}


def shares_alone(run: Run) -> Points:
    """Return the share of the clients selected that train fewer modalities than they hold, in
    percent, mean of a round and the four before it; of the first rounds, of those there are."""
    rounds, counts = selection_counts(run)
    if not len(rounds):
        return {}
    everybody = np.sum(list(counts.values()), axis=0)
    alone = everybody - counts[()]
    found = {}
    for place, number in enumerate(rounds):
        window = slice(max(place - WINDOW + 1, 0), place + 1)
        found[int(number)] = 100 * float(alone[window].sum() / everybody[window].sum())
    return found


def curve_rows(
    runs: Iterable[tuple[list[object], str, str, Curves]], heads: list[str]
) -> Iterator[list[object]]:
    """Yield the lines of ``curves.csv``, the heads first.

    Parameters
    ----------
    runs : iterable
        Of each run what tells readers where it belongs, its folder, when it was started, and its
        curves.
    heads : list of str
        Names of what tells readers where it belongs.
    """
    rows = list(runs)
    names = list(dict.fromkeys(name for *_, curves in rows for name in curves))
    yield [*heads, *_KEYS, *names]
    for where, folder, started, curves in rows:
        for number in sorted({n for by_round in curves.values() for n in by_round}):
            values = (curves.get(name, {}).get(number) for name in names)
            told = ("" if v is None else f"{v:.6g}" for v in values)
            yield [*where, folder, started, number, *told]


def read_curves(file: Path) -> dict[tuple[str, str], Curves]:
    """Read a ``curves.csv``: curves by the run's folder and when it was started.

    Raises
    ------
    OSError, ValueError, csv.Error
        If it is none that a report writes.
    """
    found: dict[tuple[str, str], Curves] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, restval="")
        heads = list(table.fieldnames or ())
        if lacking := [key for key in _KEYS if key not in heads]:
            raise ValueError(f"it has no column '{lacking[0]}'")
        names = heads[heads.index(_KEYS[-1]) + 1 :]
        for row in table:
            number = int(row["round"])
            curves = found.setdefault((row["folder"], row["started"]), {})
            for name in names:
                if row[name]:
                    curves.setdefault(name, {})[number] = float(row[name])
    # As the file has them, whichever begins first: a report of these alone writes the same file.
    return {
        run: {name: curves[name] for name in names if name in curves}
        for run, curves in found.items()
    }
