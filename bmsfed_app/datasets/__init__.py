"""Data sets by name: one file each, registered in ``DATASETS``; other packages add theirs.

Another package registers a data set with an entry point in the group ``bmsfed.datasets``, whose
name is the data set's and whose object is a :class:`Source` or a class of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bmsfed_app.datasets.account import Account
from bmsfed_app.datasets.base import DataError, Dataset, DatasetInfo, Inputs, Renderer, Split
from bmsfed_app.datasets.checks import MAX_BAD
from bmsfed_app.datasets.prepared import SPLITS, LeftOut, PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import (
    DATASETS,
    PreparedSettings,
    Source,
    SourceSettings,
    find_source,
)
from bmsfed_app.paths import default_data_dir

__all__ = [
    "DATASETS",
    "MAX_BAD",
    "Account",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "Inputs",
    "LeftOut",
    "PreparedSettings",
    "PreparedSource",
    "Renderer",
    "Sample",
    "Scan",
    "Source",
    "SourceSettings",
    "Split",
    "data_changes",
    "data_state",
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
    fingerprint: str = "",
) -> Dataset:
    """Load splits of a data set, once per process and state of the data.

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
    fingerprint : str, optional
        The state of the data that is wanted; see :meth:`Source.fingerprint`. By default, what is
        there.

    Raises
    ------
    DataError
        If there is no such data set, split or setting, or the data cannot be read, has not been
        prepared or is in another state.
    """
    source = find_source(name)
    parsed = source.parse(settings or {})
    if unknown := [s for s in splits if s not in SPLITS]:
        raise DataError(f"unknown split '{unknown[0]}' of '{name}' (known: {', '.join(SPLITS)})")
    folder = _folder(name, data_dir)
    wanted = fingerprint or data_state(name, data_dir, parsed)
    loaded = {s: _cached_split(name, s, folder, seed, parsed, wanted) for s in splits}
    return Dataset(source.info(parsed), loaded.get("train"), loaded.get("test"))


def data_state(
    name: str, data_dir: Path | None, settings: Mapping[str, Any] | SourceSettings | None = None
) -> str:
    """Return the state of the data that would be loaded now; see :meth:`Source.fingerprint`.

    Raises
    ------
    DataError
        If it has not been prepared.
    """
    source = find_source(name)
    return source.fingerprint(_folder(name, data_dir), source.parse(settings or {}))


def ensure_prepared(
    name: str,
    data_dir: Path | None,
    settings: Mapping[str, Any] | SourceSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    workers: int = 0,
    max_bad: float = MAX_BAD,
) -> Account:
    """Look at a data set's folder, and decode it if that was not done since it last changed.

    Returns
    -------
    Account
        What is used of it. Of data sets that are read as they are, the published counts.

    Raises
    ------
    DataError
        As :func:`bmsfed_app.datasets.preparation.prepare`.
    """
    source = find_source(name)
    parsed, folder = source.parse(settings or {}), _folder(name, data_dir)
    if isinstance(source, PreparedSource):
        from bmsfed_app.datasets.preparation import prepare

        return prepare(source, folder, parsed, workers=workers, max_bad=max_bad, progress=progress)
    counts = dict(source.official_counts(parsed))
    return Account(None, counts, fingerprint=source.fingerprint(folder, parsed))


def data_changes(
    name: str, data_dir: Path | None, settings: Mapping[str, Any] | SourceSettings | None = None
) -> tuple[str, str]:
    """Compare a data set's folder with what was prepared from it; nothing is made.

    Returns
    -------
    fingerprint, why : str
        As :func:`bmsfed_app.datasets.preparation.changes`; both empty for a data set that is read
        as it is.
    """
    source = find_source(name)
    if not isinstance(source, PreparedSource):
        return "", ""
    from bmsfed_app.datasets.preparation import changes

    return changes(source, _folder(name, data_dir), source.parse(settings or {}))


def _folder(name: str, data_dir: Path | None) -> Path:
    return default_data_dir(name) if data_dir is None else data_dir.expanduser()


@lru_cache(maxsize=4)
def _cached_split(
    name: str, split: str, folder: Path, seed: int, settings: SourceSettings, wanted: str
) -> Split:
    """Load a split in the state wanted; one that is loaded stays, whatever becomes of its files."""
    source = find_source(name)
    if (found := source.fingerprint(folder, settings)) != wanted:
        raise DataError(
            f"'{name}' in {folder} is prepared in state {found} here, and {wanted} is wanted: the "
            "data was changed and prepared anew since the run began; start or resume the run again"
        )
    return source.load_split(split, folder, seed, settings)
