"""Data sets by name: one file each, registered in ``DATASETS``; other packages add theirs.

Another package registers a data set with an entry point in the group ``bmsfed.datasets``, whose
name is the data set's and whose object is a :class:`Source` or a class of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bmsfed_app.datasets.base import DataError, Dataset, DatasetInfo, Renderer, Split
from bmsfed_app.datasets.prepared import SPLITS, LeftOut, PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, Source, SourceSettings, find_source
from bmsfed_app.paths import default_data_dir

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "LeftOut",
    "PreparedSource",
    "Renderer",
    "Sample",
    "Scan",
    "Source",
    "SourceSettings",
    "Split",
    "dataset_info",
    "ensure_prepared",
    "find_source",
    "load_dataset",
]


def dataset_info(
    name: str, settings: Mapping[str, Any] | SourceSettings | None = None
) -> DatasetInfo:
    """Return what is known of a data set without loading it, from its settings, plain or parsed.

    Raises
    ------
    DataError
        If there is no such data set or setting.
    """
    source = find_source(name)
    return source.info(source.parse(settings or {}))


def load_dataset(
    name: str,
    data_dir: Path | None,
    *,
    seed: int,
    settings: Mapping[str, Any] | SourceSettings | None = None,
    splits: Sequence[str] = SPLITS,
) -> Dataset:
    """Load splits of a data set, once per process.

    Parameters
    ----------
    name : str
        One of ``DATASETS``.
    data_dir : Path or None
        The data set's folder; None takes the user's default one.
    seed : int
        The experiment's: what the data set draws at random follows from it.
    settings : mapping or SourceSettings, optional
        The data set's own settings, plain or parsed.
    splits : sequence of {"train", "test"}
        What to load; the others are None.

    Raises
    ------
    DataError
        If there is no such data set, split or setting, or the data cannot be read or has not been
        prepared.
    """
    source = find_source(name)
    parsed = source.parse(settings or {})
    if unknown := [s for s in splits if s not in SPLITS]:
        raise DataError(f"unknown split '{unknown[0]}' of '{name}' (known: {', '.join(SPLITS)})")
    folder = _folder(name, data_dir)
    loaded = {s: _cached_split(name, s, folder, seed, parsed) for s in splits}
    return Dataset(source.info(parsed), loaded.get("train"), loaded.get("test"))


def ensure_prepared(
    name: str,
    data_dir: Path | None,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Decode a data set into its cache if it is of the prepared sort and has none.

    Raises
    ------
    DataError
        As :func:`bmsfed_app.datasets.preparation.prepare`.
    """
    source = find_source(name)
    if not isinstance(source, PreparedSource):
        return
    parsed, folder = source.parse(settings or {}), _folder(name, data_dir)
    if (source.cache_dir(folder, parsed) / "index.json").is_file():
        return
    from bmsfed_app.datasets.preparation import prepare

    prepare(source, folder, parsed, progress=progress)


def _folder(name: str, data_dir: Path | None) -> Path:
    return default_data_dir(name) if data_dir is None else data_dir.expanduser()


@lru_cache(maxsize=4)
def _cached_split(
    name: str, split: str, folder: Path, seed: int, settings: SourceSettings
) -> Split:
    return find_source(name).load_split(split, folder, seed, settings)
