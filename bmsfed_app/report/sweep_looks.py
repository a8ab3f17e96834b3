"""How a sweep's figures draw each method: in a colour, or in grey where they are too many."""

from __future__ import annotations

from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmsfed_app.report.figures import legend_below, series_look
from bmsfed_app.report.sweep_results import Results
from bmsfed_app.report.sweep_tables import main_columns

#: Methods that can be told apart in one figure.
MOST_METHODS = 10
_GREY: dict[str, Any] = {"color": "0.8", "marker": None, "linewidth": 0.9, "zorder": 1}


def looks(results: Results) -> dict[str, dict[str, Any]]:
    """Return what ``plot`` takes, by method that was run, in the sweep's order.

    Of more than ten methods the baselines and those of the best closing means (over all columns
    of the first metric) have colours, the others are grey.
    """
    there = [m for m in results.methods if any(m == method for method, _ in results.values)]
    shown = there
    if len(there) > MOST_METHODS:
        first = [m for m in results.sweep.baselines if m in there]
        rest = sorted((m for m in there if m not in first), key=lambda m: -_closing(results, m))
        shown = [*first, *rest][:MOST_METHODS]
    coloured = [m for m in there if m in shown]
    return {
        m: series_look(coloured.index(m)) | {"linewidth": 1.6} if m in shown else _GREY
        for m in there
    }


def _closing(results: Results, method: str) -> float:
    found = (results.merit(method, column) for column in main_columns(results))
    return mean([value for value in found if value is not None] or [float("-inf")])


def methods_below(figure: Figure, results: Results) -> None:
    """Name the methods that have colours, and the others together."""
    found = looks(results)
    named = {m: look for m, look in found.items() if look is not _GREY}
    if len(named) < len(found):
        named["others"] = _GREY
    handles = [
        Line2D([], [], markersize=5, **(look | {"linewidth": 2.4})) for look in named.values()
    ]
    legend_below(figure, handles, list(named))
