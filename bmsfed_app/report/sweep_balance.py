"""A sweep's imbalance ratio and who trains one modality alone, round by round (Figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmsfed_app.record.run import Run
from bmsfed_app.report.figures import (
    edge_labels,
    grid_of_axes,
    plain,
    round_axis,
    selection_counts,
)
from bmsfed_app.report.sweep_looks import looks, methods_below
from bmsfed_app.report.sweep_results import Results

#: Rounds over which the share of clients is averaged: few clients are selected in one.
WINDOW = 5

#: Panels beside each other that can be read.
MOST_PLACES = 4

#: Values by round.
_Points = dict[int, float]


def largest_ratios(run: Run) -> _Points:
    """Return the global imbalance ratio of the weak modality, by round (Eq. 18)."""
    return {r.round: max(r.ratio.values()) for r in run.rounds if r.ratio}


def shares_alone(run: Run) -> _Points:
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


_ROWS: tuple[tuple[str, Callable[[Run], _Points]], ...] = (
    ("imbalance ratio", largest_ratios),
    ("clients that train less (%)", shares_alone),
)


def draw_balance(results: Results) -> Figure | None:
    """Draw, for each place, methods' ratios, and below them whom they have train how.

    Curves are means over seeds. None where no run has measured ratios, or there are too many places
    for one row.
    """
    measured = [(r, run) for r, run in results.read() if largest_ratios(run)]
    places = list(dict.fromkeys((r.dataset, r.partition, r.setting) for r, _ in measured))
    if not 0 < len(places) <= MOST_PLACES:
        return None
    panels = [(p, *row) for row in _ROWS for p in places]
    figure, axes = grid_of_axes(len(panels), len(places), height=2.7, sharey=False)
    edge_labels(axes, "")
    for ax, (place, label, values) in zip(axes, panels, strict=True):
        ax.set_title(plain(", ".join(filter(None, place))))
        if place == places[0]:
            ax.set_ylabel(plain(label))
        for method, look in looks(results).items():
            runs = [run for r, run in measured if (r.method, *_place(r)) == (method, *place)]
            _curve(ax, [values(run) for run in runs], look)
        round_axis(ax)
    methods_below(figure, results)
    return figure


def _place(run: object) -> Iterator[str]:
    return (getattr(run, name) for name in ("dataset", "partition", "setting"))


def _curve(ax: Axes, found: list[_Points], look: dict[str, Any]) -> None:
    known = [points for points in found if points]
    if known:
        rounds = sorted(set.intersection(*map(set, known)))
        middle = [float(np.mean([points[n] for points in known])) for n in rounds]
        ax.plot(rounds, middle, markersize=4, markevery=3, **look)
