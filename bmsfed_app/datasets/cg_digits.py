"""CG-digits: scikit-learn's 1,797 handwritten digits as a colored/gray pair.

Nothing to download: the digits (UCI "Optical Recognition of Handwritten Digits", test part,
CC BY 4.0) come with scikit-learn.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets.base import DataError, Split
from bmsfed_app.datasets.colored import ColoredPair, ColorSettings, pair_split
from bmsfed_app.datasets.source import DATASETS

#: Where the digits lie below scikit-learn's package: 64 values 0-16 and the label a line.
_FILE = "datasets/data/digits.csv.gz"


@lru_cache(maxsize=1)
def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read what ``sklearn.datasets.load_digits`` returns from its file.

    Importing scikit-learn would take longer than training on its digits for a round.

    Returns
    -------
    images : array (1797, 64), float64
        Values 0-16.
    labels : array (1797,), int64

    Raises
    ------
    DataError
        If scikit-learn is not installed, or has the file no more.
    """
    spec = find_spec("sklearn")
    folders = [Path(f) for f in (spec and spec.submodule_search_locations) or ()]
    try:
        [file] = [f / _FILE for f in folders]
        table: NDArray[Any] = np.loadtxt(file, delimiter=",")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cg-digits: scikit-learn's digits cannot be read ({error}): pip install scikit-learn"
        ) from None
    return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)


def enlarge(images: Tensor) -> Tensor:
    """Resize images (n, 8, 8) with values 0-16 to (n, 28, 28), 0-255 as uint8, bilinearly."""
    large = F.interpolate(images[:, None].double(), size=(28, 28), mode="bilinear")[:, 0]
    # The weights are multiples of 1/14 a side: whole numbers here round alike on every machine.
    exact = (large * 14 * 14).round().long()
    scale = 14 * 14 * 16
    return ((exact * 255 + scale // 2) // scale).to(torch.uint8)


class CgDigits(ColoredPair):
    """Scikit-learn's digits as a colored/gray pair."""

    name = "cg-digits"
    summary = "scikit-learn's 8x8 digits, colored and gray; embedded"
    obtain = "Comes with scikit-learn (UCI, CC BY 4.0)."
    layout = "nothing"
    official: ClassVar = {"train": 1437, "test": 360}

    def digits(self) -> str:
        """The checksums of scikit-learn's arrays."""
        return _checksums()

    def load_split(self, split: str, data_dir: Path, seed: int, settings: ColorSettings) -> Split:
        """Load a split: 1,437 digits to train, 360 to test, each class within one of a fifth.

        The samples are sorted by class, in scikit-learn's order within a class; every fifth, from
        the first on, is a test sample. The division is fixed; ``seed`` determines the colours.

        Parameters
        ----------
        split : {"train", "test"}
        data_dir : Path
            Not needed.
        seed : int
        settings : ColorSettings
        """
        images, labels = read_digits()
        by_class = np.argsort(labels, kind="stable")
        is_test = np.arange(len(labels)) % 5 == 0
        rows = by_class[is_test if split == "test" else ~is_test]
        digits = enlarge(torch.from_numpy(images[rows].reshape(-1, 8, 8)))
        targets = torch.from_numpy(labels[rows])
        return pair_split(self.info(settings), digits, targets, split, seed=seed, settings=settings)


@lru_cache(maxsize=1)
def _checksums() -> str:
    return " ".join(f"{zlib.crc32(array.data):08x}" for array in read_digits())


DATASETS.add(CgDigits.name, CgDigits())
