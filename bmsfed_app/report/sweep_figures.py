"""Figures of a sweep: curves with a band over seeds, and a setting's influence."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmsfed_app.report.figures import (
    STYLE,
    edge_labels,
    grid_of_axes,
    plain,
    png,
    round_axis,
)
from bmsfed_app.report.statistics import mean_and_interval
from bmsfed_app.report.sweep_balance import draw_balance
from bmsfed_app.report.sweep_looks import looks, methods_below
from bmsfed_app.report.sweep_results import STATISTICS, Column, Results
from bmsfed_app.report.sweep_tables import main_columns, place_label


def draw_sweep(results: Results) -> dict[str, bytes]:
    """Draw what there are runs of.

    Returns
    -------
    dict
        PNG files by name: "curves", "settings" where the sweep has several, and "balance" where
        runs have measured imbalance ratios.
    """
    with matplotlib.rc_context(STYLE):
        figures = {"curves": _curves(results), "settings": _settings(results)}
        figures["balance"] = draw_balance(results)
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def _curves(results: Results) -> Figure | None:
    """Draw a panel for each column: the mean over seeds, and a band from least to most."""
    there = {(run.dataset, run.partition, run.setting) for run, _ in results.by_round()}
    columns = [c for c in results.columns if c[:3] in there]
    if not columns:
        return None
    figure, axes = grid_of_axes(len(columns), min(3, len(columns)), height=3.1, sharey=False)
    for ax, column in zip(axes, columns, strict=True):
        ax.set_title(plain(place_label(results, column)))
        for method, look in looks(results).items():
            _curve(ax, results, method, column, look)
        round_axis(ax)
    edge_labels(axes, _unit(results))
    methods_below(figure, results)
    return figure


def _curve(ax: Axes, results: Results, method: str, column: Column, look: dict[str, Any]) -> None:
    found = [
        curves[column.metric]
        for run, curves in results.by_round()
        if (run.method, run.dataset, run.partition, run.setting) == (method, *column[:3])
        and column.metric in curves
    ]
    if not found:
        return
    rounds = sorted(set.intersection(*map(set, found)))
    table = np.array([[points[n] for n in rounds] for points in found])
    ax.plot(rounds, table.mean(axis=0), markersize=4, markevery=3, **look)
    if len(found) > 1 and "zorder" not in look:
        low, high = table.min(axis=0), table.max(axis=0)
        ax.fill_between(rounds, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _settings(results: Results) -> Figure | None:
    """Draw, for each data set and partition, methods over settings with their intervals."""
    columns = main_columns(results)
    settings = list(dict.fromkeys(c.setting for c in columns))
    if len(settings) < 2:
        return None
    places = list(dict.fromkeys((c.dataset, c.partition, c.metric) for c in columns))
    figure, axes = grid_of_axes(len(places), min(2, len(places)), height=3.4, sharey=False)
    for ax, (dataset, partition, metric) in zip(axes, places, strict=True):
        ax.set_title(plain(", ".join(p for p in (dataset, partition) if p)))
        for index, (method, look) in enumerate(looks(results).items()):
            for place, setting in enumerate(settings):
                column = Column(dataset, partition, setting, metric)
                values = list(results.by_seed(method, column, STATISTICS[0]).values())
                if values:
                    middle, half = mean_and_interval(values)
                    x = place + (index - (len(looks(results)) - 1) / 2) * 0.12
                    error = None if np.isnan(half) else half
                    marked = look | {"marker": look["marker"] or "o", "linestyle": ""}
                    ax.errorbar(x, middle, yerror(error), capsize=3, **marked)
        ax.set_xticks(range(len(settings)), [plain(s) for s in settings], rotation=30, ha="right")
        ax.grid(True, axis="y")
    edge_labels(axes, _unit(results), "")
    methods_below(figure, results)
    return figure


def yerror(half: float | None) -> list[list[float]] | None:
    """Return what errorbar takes, none for one seed."""
    return None if half is None else [[half], [half]]


def _unit(results: Results) -> str:
    metric = next((results.metrics[c.metric] for c in results.columns), None)
    if metric is None:
        return ""
    return plain(f"{metric.axis} ({metric.unit})" if metric.unit else metric.axis)
