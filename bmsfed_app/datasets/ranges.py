"""Whether the numbers of a prepared data set enter the model at a scale that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Array, Kind, Series
from bmsfed_app.datasets.moments import Moments
from bmsfed_app.datasets.prepared import PRESENT

#: Largest value and widest deviation of a feature. `mlp` gives NaN from a deviation of 100 on; the
#: encoders of series normalise their inputs, and take raw measurements of any unit.
_BOUNDS = {Array: (1e3, 50.0), Series: (1e5, 1e4)}
_ROWS = 1024


def check_ranges(kinds: Mapping[str, Kind], folder: Path) -> list[str]:
    """Check the measured modalities of both splits as the model sees them, and say what is odd.

    Parameters
    ----------
    kinds : mapping
        By modality; only arrays and series are looked at.
    folder : Path
        With the splits' stores, ``<split>/<modality>.<part>.npy``.

    Returns
    -------
    list of str
        What a user should know of the training samples: constant features, lengths of series.

    Raises
    ------
    DataError
        If a feature's values, or their deviation, are so large that training gives NaN, or learns
        that feature alone; or that a test by them says nothing.
    """
    notes = []
    for modality, kind in kinds.items():
        if isinstance(kind, Array | Series):
            moments = _checked(modality, kind, folder / "train", "training")
            notes += _constants(modality, kind, moments)
            if isinstance(kind, Series):
                [_, lengths], there = _stores(modality, kind, folder / "train")
                notes += _lengths(modality, kind, lengths[there])
            _checked(modality, kind, folder / "test", "test")
    return notes


def _stores(
    modality: str, kind: Kind, folder: Path
) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
    """Return a split's stores of a modality, and which samples have it."""
    stores = [np.load(folder / f"{s}.npy", mmap_mode="c") for s in kind.stores(modality)]
    mask = folder / f"{modality}{PRESENT}.npy"
    there: NDArray[np.bool_] = np.load(mask) if mask.is_file() else np.ones(len(stores[0]), bool)
    return stores, there


def _checked(modality: str, kind: Array | Series, folder: Path, split: str) -> Moments:
    """Return the moments of a split's features, which are within bounds; of none, if empty."""
    moments = Moments()
    stores, there = _stores(modality, kind, folder)
    for start in range(0, len(there), _ROWS):
        part = slice(start, start + _ROWS)
        if not there[part].any():
            continue
        rows = [torch.from_numpy(store[part][there[part]]) for store in stores]
        shown = kind.render(*rows).double().numpy()
        by_feature = isinstance(kind, Series) or len(kind.size) == 1
        moments.add(shown.reshape(-1, shown.shape[-1] if by_feature else 1))
    low, high, deviation = moments.low, moments.high, moments.deviation
    largest, widest = _BOUNDS[Series if isinstance(kind, Series) else Array]
    far = np.maximum(-low, high) > largest
    if (wrong := far | (deviation > widest)).any():
        at = int(np.flatnonzero(wrong)[0])
        others = f", and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
        raise DataError(
            f"{kind.feature(at)} of '{modality}'{others}: its values in the {split} samples run "
            f"from {low[at]:.4g} to {high[at]:.4g} with deviation {deviation[at]:.4g} as the model "
            f"sees them, and training needs them near 1: standardise them (`standardise: train` "
            "in a table, else offset and scale), or mend those that are far from the others"
        )
    return moments


def _constants(modality: str, kind: Array | Series, moments: Moments) -> list[str]:
    if (same := np.flatnonzero(moments.constant)).size:
        names = ", ".join(kind.feature(int(i)) for i in same[:3])
        more = f" and {len(same) - 3} more" if len(same) > 3 else ""
        return [f"{names}{more} of '{modality}' is the same in all training samples"]
    return []


def _lengths(modality: str, kind: Series, lengths: NDArray[np.int32]) -> list[str]:
    longer, shorter = int((lengths > kind.steps).sum()), int((lengths < kind.steps).sum())
    done = {
        "stretch": ("are compressed", "are stretched"),
        "cut": ("are cut", "are filled up with zeros"),
        "pool": ("are pooled", "have steps repeated"),
    }[kind.fit]
    return [
        f"{count} of {len(lengths)} training series of '{modality}' are {word} than {kind.steps} "
        f"steps and {how}"
        for count, word, how in ((longer, "longer", done[0]), (shorter, "shorter", done[1]))
        if count
    ]
