"""A picture of a data set: samples of every modality, with their labels."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from bmsfed_app.datasets.kinds.pictures import IMAGENET_MEAN, IMAGENET_STD

#: A picture's channels up to which they are colours, not layers of a stack.
_COLOURS = 3


def draw_samples(
    inputs: Mapping[str, Tensor],
    titles: Sequence[str],
    path: Path,
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    heading: str = "",
) -> None:
    """Draw samples, a column each, with a row per modality, into a PNG.

    Parameters
    ----------
    inputs : mapping
        Model inputs (b, *shape) by modality.
    titles : sequence of b str
        What stands over each column, such as class names.
    path : Path
        The PNG; an existing one is replaced.
    captions : mapping, optional
        Texts by modality, for those that are text.
    heading : str
    """
    columns, rows = len(titles), len(inputs)
    figure = Figure(figsize=(1.9 * columns + 0.8, 2.1 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (modality, batch) in enumerate(inputs.items()):
        line = axes[row]
        texts = (captions or {}).get(modality)
        for i, ax in enumerate(line):
            ax.set_xticks([])
            ax.set_yticks([])
            if texts is not None:
                _text(ax, texts[i])
            else:
                _values(ax, batch[i].float().cpu().numpy())
            if row == 0:
                ax.set_title("\n".join(textwrap.wrap(titles[i], 22)), fontsize=9)
        line[0].set_ylabel(f"{modality}\n{'x'.join(map(str, batch.shape[1:]))}", fontsize=9)
    figure.suptitle(heading, fontsize=10)
    figure.savefig(path, dpi=110)


def _text(ax: Axes, text: str) -> None:
    lines = textwrap.wrap(text, 26)
    shown = "\n".join(lines[:9]) + (" …" if len(lines) > 9 else "")
    ax.text(0.03, 0.97, shown or "(no words)", fontsize=6.5, va="top", parse_math=False)


def _values(ax: Axes, x: NDArray[np.float32]) -> None:
    if x.ndim == 1:
        ax.bar(range(len(x)), x, color="#332288")
    elif x.ndim == 2:  # steps x features
        ax.imshow(_standard(x).T, aspect="auto", cmap="coolwarm", vmin=-3, vmax=3)
    elif x.ndim == 3 and len(x) == 1 and x.shape[1] != x.shape[2]:  # a spectrogram
        ax.imshow(x[0], aspect="auto", origin="lower", cmap="magma")
    elif x.ndim == 3 and len(x) <= _COLOURS:
        ax.imshow(_picture(x), cmap="gray")
    else:  # frames, or a stack of pictures, side by side
        frames = x if x.ndim == 4 else x[:, None]
        chosen = frames[np.linspace(0, len(frames) - 1, min(len(frames), 4)).astype(int)]
        half = (len(chosen) + 1) // 2
        empty = np.zeros_like(chosen[0])
        padded = [*chosen, *[empty] * (2 * half - len(chosen))]
        top, bottom = np.concatenate(padded[:half], 2), np.concatenate(padded[half:], 2)
        ax.imshow(_picture(np.concatenate([top, bottom], 1)), cmap="gray")


def _picture(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channels last, in [0, 1]; without the channel if there is one."""
    if len(x) == _COLOURS and x.min() < 0:  # normalised by ImageNet's statistics
        x = x * np.reshape(IMAGENET_STD, (3, 1, 1)) + np.reshape(IMAGENET_MEAN, (3, 1, 1))
        scaled = np.asarray(x.clip(0, 1), dtype=np.float32)
    else:
        scaled = (x - x.min()) / max(x.max() - x.min(), 1e-9)
    return scaled[0] if len(x) == 1 else scaled.transpose(1, 2, 0)


def _standard(x: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    return result
