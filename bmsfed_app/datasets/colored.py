"""The colored/gray pair: every digit once as it is, once painted in one colour on black.

Training digits take their class's colour, so colour alone nearly gives the class; test digits
take any class's, so it misleads ("Learning Not to Learn", Kim et al. 2019; the paper's CG-MNIST,
Sect. 4.1). Shape legend: n samples of a split, b samples of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmsfed_app.datasets.base import DataError, DatasetInfo, Renderer, Split
from bmsfed_app.datasets.source import Source
from strategies.randomness import generator

NUM_CLASSES = 10
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081

#: Mean colour of every class, (R, G, B) in 0-255.
PALETTE = (
    (60, 180, 75),
    (255, 255, 25),
    (0, 130, 200),
    (245, 130, 48),
    (70, 240, 240),
    (240, 50, 230),
    (230, 25, 75),
    (0, 0, 128),
    (220, 190, 255),
    (255, 250, 200),
)


@dataclass(frozen=True)
class ColorSettings:
    """How digits are coloured.

    Attributes
    ----------
    color_noise : float
        Variance of the noise per channel, channels in [0, 1]; at least 0.
    test_color_correlation : float
        Probability that a test digit takes its own class's colour rather than any; 0 to 1.
    palette : tuple of ten (R, G, B)
        Mean colours in class order, 0-255.

    Raises
    ------
    DataError
        If a value is out of its range.
    """

    color_noise: float = 0.030
    test_color_correlation: float = 0.0
    palette: tuple[tuple[float, ...], ...] = PALETTE

    def __post_init__(self) -> None:
        if not _is_number(self.color_noise, 0, 1e6):
            raise DataError(f"color_noise: a variance of at least 0, not {self.color_noise!r}")
        if not _is_number(self.test_color_correlation, 0, 1):
            raise DataError(
                f"test_color_correlation: a share from 0 to 1, not {self.test_color_correlation!r}"
            )
        if len(self.palette) != NUM_CLASSES:
            raise DataError(f"palette: ten colours, one a class, not {len(self.palette)}")
        for number, color in enumerate(self.palette):
            if len(color) != 3 or not all(_is_number(c, 0, 255) for c in color):
                raise DataError(
                    f"palette: the colour of class {number} is three numbers (R, G, B) from 0 to "
                    f"255, not {color!r}"
                )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> ColorSettings:
        """Build the settings from plain values (YAML, JSON), which may leave some out.

        Raises
        ------
        DataError
            If a key is unknown or a value is out of its range.
        """
        if unknown := [k for k in values if k not in SETTINGS]:
            raise DataError(
                f"unknown data set setting '{unknown[0]}' (known: {', '.join(SETTINGS)})"
            )
        plain = dict(values)
        if "palette" in plain:
            try:
                plain["palette"] = tuple(tuple(color) for color in plain["palette"])
            except TypeError:
                raise DataError(
                    f"palette: a list of ten [R, G, B], not {plain['palette']!r}"
                ) from None
        return cls(**plain)


def _is_number(value: Any, low: float, high: float) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and low <= value <= high


#: Names of the settings.
SETTINGS = tuple(field.name for field in fields(ColorSettings))


# --- colours of a split -------------------------------------------------------------------------


def colors(labels: Tensor, split: str, seed: int, settings: ColorSettings) -> Tensor:
    """Draw every sample's colour.

    Deterministic per (seed, split, sample): one generator draws for all samples in order, and the
    settings change what is made of the draws, not the draws.

    Parameters
    ----------
    labels : Tensor (n,), int64
    split : {"train", "test"}
    seed : int
        The experiment's.
    settings : ColorSettings

    Returns
    -------
    Tensor (n, 3), float32
        In [0, 1].
    """
    rng, n = generator(seed, "colors", split), len(labels)
    noise = rng.standard_normal((n, 3))
    source = labels.numpy()
    if split == "test":
        any_class, own = rng.integers(NUM_CLASSES, size=n), rng.random(n)
        source = np.where(own < settings.test_color_correlation, source, any_class)
    means = np.asarray(settings.palette, dtype=np.float64) / 255
    drawn = means[source] + noise * np.sqrt(settings.color_noise)
    return torch.from_numpy(drawn.clip(0, 1).astype(np.float32))


# --- batches ------------------------------------------------------------------------------------


def render_gray(digits: Tensor) -> Tensor:
    """Normalise digits (b, 28, 28), uint8, by MNIST's mean and deviation: (b, 1, 28, 28)."""
    return (digits[:, None].float() / 255 - MNIST_MEAN) / MNIST_STD


def render_colored(digits: Tensor, colors: Tensor) -> Tensor:
    """Paint digits (b, 28, 28), uint8, in colours (b, 3) on black: (b, 3, 28, 28) in [0, 1].

    Not normalised further: the encoder begins with a batch norm.
    """
    return (digits[:, None].float() / 255) * colors[:, :, None, None]


def pair_info(name: str) -> DatasetInfo:
    """Describe a data set of ten digits as a colored/gray pair."""
    return DatasetInfo(
        name=name,
        modalities=("colored", "gray"),
        num_classes=NUM_CLASSES,
        class_names=tuple(str(digit) for digit in range(NUM_CLASSES)),
        shapes={"colored": (3, 28, 28), "gray": (1, 28, 28)},
        renderers={
            "colored": Renderer(("digits", "colors"), render_colored),
            "gray": Renderer(("digits",), render_gray),
        },
        encoders={"colored": "conv4", "gray": "conv4"},
    )


def pair_split(
    info: DatasetInfo,
    digits: Tensor,
    labels: Tensor,
    split: str,
    *,
    seed: int,
    settings: ColorSettings,
) -> Split:
    """Make a colored/gray split.

    Parameters
    ----------
    info : DatasetInfo
        From :func:`pair_info`.
    digits : Tensor (n, 28, 28), uint8
        White on black.
    labels : Tensor (n,), int64
    split : {"train", "test"}
    seed : int
        The experiment's; with the split's name it determines the colours.
    settings : ColorSettings
    """
    stores = {"digits": digits, "colors": colors(labels, split, seed, settings)}
    return Split(labels, stores, info.renderers)


class ColoredPair(Source):
    """A data set of ten digits as a colored/gray pair."""

    def info(self, settings: ColorSettings) -> DatasetInfo:
        """Return what is known without any file."""
        return pair_info(self.name)

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Names of the data set's own settings."""
        return SETTINGS

    def parse(self, values: Mapping[str, Any]) -> ColorSettings:
        """Turn plain values into settings; see :meth:`ColorSettings.parse`."""
        return ColorSettings.parse(values)
