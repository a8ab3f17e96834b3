"""The report's figures, drawn through matplotlib's object API: no pyplot, no global figures."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)
from numpy.typing import NDArray

from bmsfed_app.record.rows import Member
from bmsfed_app.record.run import Run, common_prefix
from bmsfed_app.report.studies import Series, Study
from strategies import Metric

#: Bars of the selection figure; more rounds than these are binned.
MAX_BARS = 60

#: Figures that are not of metrics.
_OTHERS = ("ratio", "selection", "classes", "traffic")

# Okabe and Ito's palette (methods) and Tol's "muted" (modalities): both safe for colour-blind
# readers, and distinct from each other so that a colour never means two things.
_METHOD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
MODALITY_COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255", "#88CCEE", "#117733")
_ALL_COLOUR = "#CDD1D8"
_SEED_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Any = {
    "text.usetex": False,
    "text.parse_math": False,  # names are shown as they are, dollar signs too
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": "#1f2937",
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw(study: Study) -> dict[str, bytes]:
    """Draw every figure that the runs have data for.

    Parameters
    ----------
    study : Study
        Runs that saw the same data.

    Returns
    -------
    dict
        PNG files by name: one for what each group of metrics is of, such as "accuracy"; and
        "ratio", "selection", "classes", "traffic" where rounds were trained and the numbers were
        recorded.
    """
    metrics: dict[str, Callable[[Study], Figure | None]] = {
        figure_name(axis): partial(_metrics, axis=axis, columns=columns)
        for axis, columns in study.axes()
    }
    others = dict(zip(_OTHERS, (_ratio, _selection, _classes, _traffic), strict=True))
    drawers = metrics | others
    with matplotlib.rc_context(STYLE):
        figures = {name: drawer(study) for name, drawer in drawers.items()}
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def figure_name(axis: str) -> str:
    """Return the file name, without its ending, for the figure of metrics of one axis."""
    name = re.sub(r"[^a-z0-9]+", "-", axis.lower()).strip("-")
    return f"{name}-metric".lstrip("-") if name in {"", *_OTHERS} else name


def bin_width(rounds: int) -> int:
    """Return how many rounds one bar of the selection figure stands for."""
    return max(1, math.ceil(rounds / MAX_BARS))


# --- curves -------------------------------------------------------------------------------------


def _metrics(study: Study, axis: str, columns: list[tuple[Metric, str | None]]) -> Figure:
    """Draw metrics of one axis, a panel each."""
    figure, axes = grid_of_axes(
        len(columns), 3 if len(columns) != 4 else 2, height=3.1, sharey=True
    )
    for ax, (metric, modality) in zip(axes, columns, strict=True):
        ax.set_title(plain(metric.label(modality)))
        for _, run, look in _looks(study):
            points = run.values(metric.name, modality)
            _line(ax, [n for n, _ in points], [metric.shown(v) for _, v in points], look)
        if metric.unit == "%":
            ax.set_ylim(0, 100)
            ax.yaxis.set_major_locator(FixedLocator(range(0, 101, 20)))
        round_axis(ax)
    unit = columns[0][0].unit
    edge_labels(axes, plain(f"{axis} ({unit})" if unit else axis))
    _curve_legend(figure, study)
    return figure


def _ratio(study: Study) -> Figure | None:
    found = [pair for _, run in study.runs() for r in run.rounds for pair in finite(r.ratio)]
    values = [v for _, v in found if v > 0]
    if not values:
        return None
    recorded = {m for m, _ in found}
    shown = [m for m in study.modalities if m in recorded] or sorted(recorded)
    logarithmic = max(*values, 1.0) > 10 * min(*values, 1.0)
    figure, axes = grid_of_axes(
        len(shown), 2 if len(shown) in (1, 2, 4) else 3, height=3.1, sharey=True
    )
    for ax, modality in zip(axes, shown, strict=True):
        ax.set_title(plain(modality))
        ax.axhline(1.0, color="#6b7280", linewidth=1, zorder=1)
        for _, run, look in _looks(study):
            points = [(r.round, v) for r in run.rounds for m, v in finite(r.ratio) if m == modality]
            _line(ax, [n for n, _ in points], [v for _, v in points], look)
        if logarithmic:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_locator(NullLocator())
        round_axis(ax)
    edge_labels(axes, "imbalance ratio" + (" (log scale)" if logarithmic else ""))
    _curve_legend(figure, study)
    return figure


def finite(values: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the entries that are finite numbers."""
    return [(k, v) for k, v in values.items() if v is not None and math.isfinite(v)]


def _traffic(study: Study) -> Figure | None:
    if not any(r.bytes_down or r.bytes_up for _, run in study.runs() for r in run.rounds):
        return None
    figure, axes = grid_of_axes(2, 2, height=3.1, sharey=True)
    for ax, title in zip(axes, ("server to clients (down)", "clients to server (up)"), strict=True):
        ax.set_title(title)
        for _, run, look in _looks(study):
            sizes = [r.bytes_down if ax is axes[0] else r.bytes_up for r in run.rounds]
            _line(ax, [r.round for r in run.rounds], np.cumsum(sizes) / 2**20, look)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        round_axis(ax)
    edge_labels(axes, "total so far (MiB)")
    _curve_legend(figure, study)
    return figure


def _looks(study: Study) -> Iterable[tuple[Series, Run, dict[str, Any]]]:
    """Every run with its look: a colour per series, a line style per seed."""
    seeds = _seeds(study)
    for index, series in enumerate(study.series):
        for run in series.runs:
            yield series, run, {**series_look(index), "linestyle": _seed_style(seeds, run.seed)}


def series_look(index: int) -> dict[str, Any]:
    """Return a colour, and a marker where colours start over."""
    again, colour = divmod(index, len(_METHOD_COLOURS))
    marker = _MARKERS[(again - 1) % len(_MARKERS)] if again else None
    return {"color": _METHOD_COLOURS[colour], "marker": marker}


def _seeds(study: Study) -> list[int]:
    return sorted({run.seed for _, run in study.runs()})


def _seed_style(seeds: Sequence[int], seed: int) -> Any:
    return _SEED_STYLES[seeds.index(seed) % len(_SEED_STYLES)]


def _line(ax: Axes, x: Sequence[int], y: Any, look: Mapping[str, Any]) -> None:
    """Draw a curve; few points get markers, so that a single one can be seen."""
    marker = look["marker"] or ("o" if len(x) <= 12 else None)
    every = max(1, len(x) // 12)
    shape: dict[str, Any] = {
        "linewidth": 1.6 if len(x) <= 200 else 0.9,
        "markersize": 4,
        "markevery": every,
        "alpha": 0.95,
    }
    ax.plot(x, y, **{**look, "marker": marker}, **shape)


def round_axis(ax: Axes) -> None:
    """Prepare an axis of rounds."""
    ax.grid(True, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    ax.margins(x=0.02)


def _curve_legend(figure: Figure, study: Study) -> None:
    """Explain colours (series) and line styles (seeds) below the panels."""
    handles = [
        Line2D([], [], linewidth=2.4, markersize=5, **series_look(i))
        for i in range(len(study.series))
    ]
    labels = [series.label for series in study.series]
    seeds = _seeds(study)
    if len(seeds) > 1:
        handles += [Line2D([], [], color="#4b5563", linestyle=_seed_style(seeds, s)) for s in seeds]
        labels += [f"seed {s}" for s in seeds]
    legend_below(figure, handles, labels)


# --- selection ----------------------------------------------------------------------------------


def selection_counts(
    run: Run,
) -> tuple[NDArray[np.int64], dict[tuple[str, ...], NDArray[np.int64]]]:
    """Count the clients selected with all they hold, and with fewer modalities.

    Parameters
    ----------
    run : Run
        A client that is not in its ``clients`` counts as holding every modality.

    Returns
    -------
    rounds : ndarray of int, shape (R,)
        Numbers of the rounds that selected anybody.
    counts : dict
        Clients per round, shape (R,), by what they were selected for; the empty tuple stands for
        all that a client holds.
    """
    order = {m: i for i, m in enumerate(run.modalities)}
    rounds = [r for r in run.rounds if r.assignments]
    counts: dict[tuple[str, ...], NDArray[np.int64]] = {(): np.zeros(len(rounds), np.int64)}
    for modality in run.modalities:
        counts[(modality,)] = np.zeros(len(rounds), np.int64)
    for index, entry in enumerate(rounds):
        for client, assigned in entry.assignments.items():
            held = run.clients[client].modalities if client in run.clients else run.modalities
            part = tuple(sorted(set(assigned), key=lambda m: (order.get(m, len(order)), m)))
            key = () if set(assigned) == set(held) else part
            counts.setdefault(key, np.zeros(len(rounds), np.int64))[index] += 1
    return np.array([r.round for r in rounds], np.int64), counts


def _selection(study: Study) -> Figure | None:
    runs = [(series, run) for series, run in study.runs() if any(r.assignments for r in run.rounds)]
    if not runs:
        return None
    found = [(series, run, *selection_counts(run)) for series, run in runs]
    kinds = sorted({k for *_, c in found for k in c}, key=lambda k: _kind_order(k, study))
    last = max(int(rounds[-1]) for _, _, rounds, _ in found)
    width = bin_width(last)
    columns = 3 if max(len(series.runs) for series in study.series) == 3 else 2
    figure, axes = grid_of_axes(len(runs), columns, height=2.1, sharey=True, sharex=True)
    for ax, (series, run, rounds, counts) in zip(axes, found, strict=True):
        ax.set_title(plain(series.run_label(run), 60))
        _shares(ax, rounds, counts, kinds, width)
        ax.set_xlim(0.5, max(last, width) + 0.5)
        ax.set_ylim(0, 100)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    unit = "round" if width == 1 else f"round (bars of {width})"
    edge_labels(axes, "selected clients (%)", unit)
    handles = [Patch(color=_kind_colour(i)) for i in range(len(kinds))]
    legend_below(figure, handles, [_kind_label(kind) for kind in kinds])
    return figure


def _shares(
    ax: Axes,
    rounds: NDArray[np.int64],
    counts: Mapping[tuple[str, ...], NDArray[np.int64]],
    kinds: Sequence[tuple[str, ...]],
    width: int,
) -> None:
    """Stack the shares of each kind, over bins of ``width`` rounds."""
    bins = (rounds - 1) // width
    totals = np.bincount(bins, weights=sum(counts.values()))
    used = np.flatnonzero(totals)
    left = used * width + 0.5
    bottom = np.zeros(len(used))
    for index, kind in enumerate(kinds):
        if kind in counts:
            share = 100 * np.bincount(bins, weights=counts[kind])[used] / totals[used]
            ax.bar(
                left,
                share,
                width,
                bottom,
                align="edge",
                color=_kind_colour(index),
                edgecolor="white",
                linewidth=0.3,
            )
            bottom += share


def _kind_order(kind: tuple[str, ...], study: Study) -> tuple[bool, bool, int, list[int], tuple]:
    places = [study.modalities.index(m) if m in study.modalities else 99 for m in kind]
    return bool(kind), len(kind) > 1, len(kind), places, kind


def _kind_colour(index: int) -> str:
    return MODALITY_COLOURS[(index - 1) % len(MODALITY_COLOURS)] if index else _ALL_COLOUR


def _kind_label(kind: tuple[str, ...]) -> str:
    if not kind:
        return "all the client holds"
    return f"{kind[0]} alone" if len(kind) == 1 else f"only {' + '.join(kind)}"


# --- class counts -------------------------------------------------------------------------------


def partitions(study: Study) -> list[tuple[str, Run]]:
    """Return the distinct divisions of the data, each with its runs' names and one of them."""
    found: dict[tuple[Any, ...], list[tuple[Series, Run]]] = {}
    for series, run in study.runs():
        key = tuple((c, tuple(v.class_counts)) for c, v in sorted(run.clients.items()))
        if any(counts for _, counts in key):
            found.setdefault(key, []).append((series, run))
    return [(_whose(members, study), members[0][1]) for members in found.values()]


def _whose(members: Sequence[tuple[Series, Run]], study: Study) -> str:
    """Name the runs that share a partition, briefly: those of some seeds, or one by one."""
    seeds = sorted({run.seed for _, run in members})
    if len(members) == sum(run.seed in seeds for _, run in study.runs()):
        return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))
    return "; ".join(series.run_label(run) for series, run in members)


def _classes(study: Study) -> Figure | None:
    found = partitions(study)
    if not found:
        return None
    tables = [_class_table(run.clients) for _, run in found]
    tallest, widest = (max(t.shape[i] for t in tables) for i in (0, 1))
    height = min(max(0.24 * tallest, 1.6), 7.0) + 0.9
    columns = 2 if len(found) > 1 and widest <= 30 else 1
    figure, axes = grid_of_axes(len(found), columns, height=height)
    top = max(int(t.max()) for t in tables)
    for ax, (whose, run), table in zip(axes, found, tables, strict=True):
        image = ax.imshow(table, cmap="YlGnBu", vmin=0, vmax=max(top, 1), aspect="auto")
        ax.set_title(plain(whose, 60))
        _write_counts(ax, table, top, columns)
        prefix = _name_clients(ax, sorted(run.clients), columns)
        known = run.info.class_names
        names = known if len(known) == len(table) else range(len(table))
        _name_ticks(ax.yaxis, [plain(str(n), 16) for n in names], 30)
        ax.set_xlabel(plain(f"client ({prefix}…)" if prefix else "client", 40))
        ax.set_ylabel("class")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.015)
    bar.set_label("training samples")
    bar.outline.set_visible(False)
    return figure


def _class_table(clients: Mapping[str, Member]) -> NDArray[np.int64]:
    """Class counts, shape (classes, clients); clients in the order of their names."""
    rows = [clients[name].class_counts for name in sorted(clients)]
    table = np.zeros((max(map(len, rows)), len(rows)), np.int64)
    for column, counts in enumerate(rows):
        table[: len(counts), column] = counts
    return table


def _write_counts(ax: Axes, table: NDArray[np.int64], top: int, columns: int) -> None:
    """Write the numbers into the cells where they can be read."""
    if table.shape[1] * len(str(top)) > 80 / columns or table.shape[0] > 25:
        return
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if count > 0.6 * top else "#374151"
        ax.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)


def _name_clients(ax: Axes, names: Sequence[str], columns: int) -> str:
    """Label the clients without what their names have in common, which is returned."""
    prefix = common_prefix(names)
    short = [plain(name[len(prefix) :], 10) for name in names]
    longest = max(map(len, short))
    _name_ticks(ax.xaxis, short, (40 if longest < 3 else 30) // columns)
    if longest > 3:
        ax.tick_params(axis="x", rotation=90)
    return prefix


def _name_ticks(axis: Any, names: Sequence[str], most: int) -> None:
    step = max(1, math.ceil(len(names) / most))
    axis.set_ticks(range(0, len(names), step), [names[i] for i in range(0, len(names), step)])


# --- shared -------------------------------------------------------------------------------------


def grid_of_axes(
    panels: int, columns: int, height: float, sharey: bool = False, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of 9.6 inches with so many panels; spare ones are left out."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(9.6, rows * height + 0.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharey=sharey, sharex=sharex, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[panels:]:
        spare.remove()
    for ax in axes[max(0, panels - columns) : panels]:
        ax.tick_params(labelbottom=True)
    return figure, axes[:panels]


def edge_labels(axes: Sequence[Axes], y: str, x: str = "round") -> None:
    """Label y on the panels at the left, x on those with nothing below."""
    columns = axes[0].get_gridspec().ncols  # type: ignore[union-attr]
    for index, ax in enumerate(axes):
        if index % columns == 0:
            ax.set_ylabel(y)
        if index + columns >= len(axes):
            ax.set_xlabel(x)


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend below the panels."""
    names = [plain(label, 70) for label in labels]
    longest = max(map(len, names))
    columns = max(1, min(len(names), 110 // (longest + 8)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def plain(text: str, length: int = 40) -> str:
    """Return text as matplotlib shows it literally: no control characters, short."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    text = text if len(text) <= length else text[: length - 1] + "…"
    return f" {text}" if text.startswith("_") else text


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
