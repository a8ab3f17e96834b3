"""A picture of a partition: each client's class counts, and the modalities that it holds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bmsfed_app.report.figures import MODALITY_COLOURS, STYLE, plain, png

#: More clients or classes than these are drawn as a heat map: bars would be too thin, or their
#: colours too alike.
MAX_BARS, MAX_COLOURS = 40, 20

_NAMES = 50  # client names along the side
_LONGEST = 18  # letters of a name


def draw_partition(
    counts: NDArray[np.int64],
    names: Sequence[str],
    modalities: Sequence[Sequence[str]],
    class_names: Sequence[str],
    path: Path,
    *,
    heading: str = "",
) -> None:
    """Draw each client's class counts, a row each, into a PNG, with the modalities it holds.

    Parameters
    ----------
    counts : array (N, C), int
        Samples by client and class.
    names : sequence of N str
    modalities : sequence of N sequences of str
        What each client holds.
    class_names : sequence of C str
    path : Path
        The PNG; an existing one is replaced.
    heading : str
    """
    known = list(dict.fromkeys(m for held in modalities for m in held))
    as_bars = len(counts) <= MAX_BARS and counts.shape[1] <= MAX_COLOURS
    height = 1.6 + max(0.26 if len(counts) <= 30 else 0.13, 1.6 / len(counts)) * len(counts)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, height), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(24, max(len(known), 2)))
        if as_bars:
            _bars(figure, left, counts, class_names)
        else:
            _heat_map(figure, left, counts, class_names)
        _modalities(right, modalities, known)
        step = math.ceil(len(names) / _NAMES)
        shown = [plain(names[i], _LONGEST) for i in range(0, len(names), step)]
        left.set_yticks(range(0, len(names), step), shown, fontsize=8)
        left.set_ylim(len(names) - 0.5, -0.5)
        left.set_ylabel("client")
        left.set_title("\n".join(textwrap.wrap(plain(heading, 300), 85)))
        path.write_bytes(png(figure))


def _bars(figure: Figure, ax: Axes, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Stack each client's classes from left to right."""
    scale = matplotlib.colormaps["tab10" if len(class_names) <= 10 else "tab20"]
    palette = [scale(label) for label in range(counts.shape[1])]
    starts = np.cumsum(counts, 1) - counts
    for label in range(counts.shape[1]):
        ax.barh(
            range(len(counts)),
            counts[:, label],
            0.8,
            starts[:, label],
            color=palette[label],
            edgecolor="white",
            linewidth=0.3,
        )
    ax.set_xlim(0, 1.02 * max(counts.sum(1).max(), 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_xlabel("training samples")
    texts = [plain(str(name), _LONGEST) for name in class_names]
    columns = max(1, min(len(texts), 110 // (max(map(len, texts)) + 6)))
    patches = [Patch(color=colour) for colour in palette]
    figure.legend(patches, texts, loc="outside lower center", ncols=columns, fontsize=8)


def _heat_map(
    figure: Figure, ax: Axes, counts: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """Colour a cell for each client and class; an absent class is white."""
    shown = np.ma.masked_equal(counts, 0)
    image = ax.imshow(shown, cmap="viridis_r", vmin=0, vmax=max(counts.max(), 1), aspect="auto")
    step = math.ceil(len(class_names) / 40)
    texts = [plain(str(class_names[i]), _LONGEST) for i in range(0, len(class_names), step)]
    ax.set_xticks(range(0, len(class_names), step), texts, fontsize=8)
    if sum(map(len, texts)) > 70:
        ax.tick_params(axis="x", rotation=90)
    ax.set_xlabel("class")
    share = 0.5 / figure.get_figheight()  # half an inch, however many clients
    bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.5, aspect=40, fraction=share)
    bar.set_label("training samples")
    bar.outline.set_visible(False)


def _modalities(ax: Axes, modalities: Sequence[Sequence[str]], known: Sequence[str]) -> None:
    """Mark what each client holds, a column for each modality."""
    for column, modality in enumerate(known):
        rows = [row for row, held in enumerate(modalities) if modality in held]
        colour = MODALITY_COLOURS[column % len(MODALITY_COLOURS)]
        ax.barh(rows, 0.7, 0.7, column - 0.35, color=colour)
    ax.set_xlim(-0.6, len(known) - 0.4)
    ax.set_xticks(range(len(known)), [plain(m, _LONGEST) for m in known], rotation=90, fontsize=8)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelleft=False)
