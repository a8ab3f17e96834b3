"""Data sets by name. Adding one takes a file here and an entry in ``DATASETS``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bmsfed_app.datasets import cg_digits, cg_mnist, colored
from bmsfed_app.datasets.base import DataError, Dataset, DatasetInfo, Renderer, Split
from bmsfed_app.paths import default_data_dir

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetEntry",
    "DatasetInfo",
    "Renderer",
    "Split",
    "dataset_info",
    "load_dataset",
]

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of the registry.

    Attributes
    ----------
    info : DatasetInfo
    load_split : callable
        Loads one split from (its name, the data folder, the seed, the parsed settings).
    settings : tuple of str
        Names of the data set's own settings.
    parse : callable
        Turns plain values of some settings into a hashable whole, or raises ``DataError``.
    download : callable, optional
        Fetches the data into a folder; None where there is nothing to download.
    """

    info: DatasetInfo
    load_split: Callable[[str, Path, int, Any], Split]
    settings: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Any]
    download: Callable[[Path], None] | None = None


DATASETS: dict[str, DatasetEntry] = {
    "cg-digits": DatasetEntry(
        cg_digits.INFO, cg_digits.load_split, colored.SETTINGS, colored.ColorSettings.parse
    ),
    "cg-mnist": DatasetEntry(
        cg_mnist.INFO,
        cg_mnist.load_split,
        colored.SETTINGS,
        colored.ColorSettings.parse,
        cg_mnist.download,
    ),
}


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known of a data set without loading it.

    Raises
    ------
    DataError
        If there is no such data set.
    """
    return _entry(name).info


def load_dataset(
    name: str,
    data_dir: Path | None,
    *,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    splits: Sequence[str] = SPLITS,
) -> Dataset:
    """Load splits of a data set into memory, once per process.

    Parameters
    ----------
    name : str
        Key of ``DATASETS``.
    data_dir : Path or None
        The data set's folder; None takes the user's default one.
    seed : int
        The experiment's: what the data set draws at random follows from it.
    settings : mapping, optional
        The data set's own settings as plain values.
    splits : sequence of {"train", "test"}
        What to load; the others are None.

    Raises
    ------
    DataError
        If there is no such data set, split or setting, or the data cannot be read.
    """
    entry = _entry(name)
    parsed = entry.parse(settings or {})
    folder = default_data_dir(name) if data_dir is None else data_dir.expanduser()
    if unknown := [s for s in splits if s not in SPLITS]:
        raise DataError(f"unknown split '{unknown[0]}' of '{name}' (known: {', '.join(SPLITS)})")
    loaded = {s: _cached_split(name, s, folder, seed, parsed) for s in splits}
    return Dataset(entry.info, loaded.get("train"), loaded.get("test"))


@lru_cache(maxsize=4)
def _cached_split(name: str, split: str, folder: Path, seed: int, parsed: Any) -> Split:
    return DATASETS[name].load_split(split, folder, seed, parsed)


def _entry(name: str) -> DatasetEntry:
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(f"unknown data set '{name}'{hint} (known: {', '.join(DATASETS)})")
    return DATASETS[name]
