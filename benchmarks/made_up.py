"""A data set of random pictures in any number, for benchmarks that need no data to be there.

A plug-in: name this module under ``plugins``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field

from bmsfed_app.datasets.base import Split
from bmsfed_app.datasets.colored import ColoredPair, ColorSettings, pair_split
from bmsfed_app.datasets.source import DATASETS


class MadeUpSettings(ColorSettings):
    """How many pictures there are.

    Attributes
    ----------
    train, test : int
    """

    train: int = Field(1000, ge=1)
    test: int = Field(10, ge=1)


class MadeUpDigits(ColoredPair):
    """Random pictures of MNIST's shape as a colored/gray pair."""

    name = "made-up-digits"
    summary = "random pictures, colored and gray; for benchmarks"
    obtain = "Made when it is loaded."
    layout = "nothing"
    settings = MadeUpSettings

    def digits(self) -> str:
        """Always the same ones."""
        return "torch's generator, seed 0"

    def load_split(self, split: str, data_dir: Path, seed: int, settings: MadeUpSettings) -> Split:
        """Draw a split's pictures."""
        n = settings.train if split == "train" else settings.test
        rng = torch.Generator().manual_seed(0)
        digits = torch.randint(256, (n, 28, 28), generator=rng, dtype=torch.uint8)
        labels = torch.arange(n) % 10
        return pair_split(self.info(settings), digits, labels, split, seed=seed, settings=settings)


DATASETS.add(MadeUpDigits.name, MadeUpDigits())
