"""The colored/gray pair: every digit once as it is, once painted in one colour on black.

Training digits take their class's colour, so colour alone nearly gives the class; test digits
take any class's, so it misleads ("Learning Not to Learn", Kim et al. 2019; the paper's CG-MNIST,
Sect. 4.1). Shape legend: n samples of a split, b samples of a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bmsfed_app.datasets.base import DatasetInfo, Renderer, Split
from bmsfed_app.datasets.fingerprint import digest
from bmsfed_app.datasets.source import Source, SourceSettings
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


Channel = Annotated[float, Field(ge=0, le=255, strict=True)]
#: (R, G, B), 0-255.
Color = tuple[Channel, Channel, Channel]


class ColorSettings(SourceSettings):
    """How digits are coloured.

    Attributes
    ----------
    color_noise : float
        Variance of the noise per channel, channels in [0, 1]; at least 0.
    test_color_correlation : float
        Probability that a test digit takes its own class's colour rather than any; 0 to 1.
    palette : tuple of ten (R, G, B)
        Mean colours in class order, 0-255.
    """

    color_noise: float = Field(0.030, ge=0, le=1e6, strict=True)
    test_color_correlation: float = Field(0.0, ge=0, le=1, strict=True)
    palette: tuple[Color, ...] = Field(PALETTE, min_length=NUM_CLASSES, max_length=NUM_CLASSES)


# --- colours of a split -------------------------------------------------------------------------


def colors(labels: Tensor, split: str, seed: int, settings: ColorSettings) -> Tensor:
    """Draw every sample's colour.

    Deterministic per (seed, split, sample): one generator draws for all samples in order, and the
    settings change what is made of the draws, not the draws.

    Parameters
    ----------
    labels : Tensor (n,), int64
    split : {"train", "test", "validation"}
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
    if split != "train":
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

    settings = ColorSettings

    @abstractmethod
    def digits(self) -> str:
        """Name the digits: their checksums."""

    def info(self, settings: ColorSettings) -> DatasetInfo:
        """Return what is known without any file."""
        return pair_info(self.name)

    def unseen(self, split: Split, seed: int, settings: ColorSettings) -> Split:
        """Paint training digits by the rule of the test split, in colours of their own."""
        painted = {**split.stores, "colors": colors(split.labels, "validation", seed, settings)}
        return replace(split, stores=painted)

    def fingerprint(self, data_dir: Path, settings: ColorSettings) -> str:
        """Name digits and settings; the digits are known before they are read."""
        return digest([self.name, self.digits(), settings.model_dump(mode="json")])[:16]
