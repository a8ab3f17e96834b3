"""A sweep's imbalance ratio and who trains one modality alone, round by round (Figure 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmsfed_app.report.figures import edge_labels, grid_of_axes, plain, round_axis
from bmsfed_app.report.sweep_curves import RATIO, TRAIN_LESS, Points
from bmsfed_app.report.sweep_looks import looks, methods_below
from bmsfed_app.report.sweep_results import Results

#: Panels beside each other that can be read.
MOST_PLACES = 4

_ROWS = (("imbalance ratio", RATIO), ("clients that train less (%)", TRAIN_LESS))


def draw_balance(results: Results) -> Figure | None:
    """Draw, for each place, methods' ratios, and below them whom they have train how.

    Curves are means over seeds. None where no run has measured ratios, or there are too many places
    for one row.
    """
    measured = [(r, curves) for r, curves in results.by_round() if RATIO in curves]
    places = list(dict.fromkeys((r.dataset, r.partition, r.setting) for r, _ in measured))
    if not 0 < len(places) <= MOST_PLACES:
        return None
    panels = [(p, *row) for row in _ROWS for p in places]
    figure, axes = grid_of_axes(len(panels), len(places), height=2.7, sharey=False)
    edge_labels(axes, "")
    for ax, (place, label, name) in zip(axes, panels, strict=True):
        ax.set_title(plain(", ".join(filter(None, place))))
        if place == places[0]:
            ax.set_ylabel(plain(label))
        for method, look in looks(results).items():
            at = [c for r, c in measured if (r.method, *_place(r)) == (method, *place)]
            _curve(ax, [curves.get(name, {}) for curves in at], look)
        round_axis(ax)
    methods_below(figure, results)
    return figure


def _place(run: object) -> Iterator[str]:
    return (getattr(run, name) for name in ("dataset", "partition", "setting"))


def _curve(ax: Axes, found: list[Points], look: dict[str, Any]) -> None:
    known = [points for points in found if points]
    if known:
        rounds = sorted(set.intersection(*map(set, known)))
        middle = [float(np.mean([points[n] for points in known])) for n in rounds]
        ax.plot(rounds, middle, markersize=4, markevery=3, **look)
