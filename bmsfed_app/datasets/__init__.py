"""Data sets by name: one file each, joined in ``DATASETS``; other packages add theirs.

Another package registers a data set with an entry point in the group ``bmsfed.datasets``, whose
name is the data set's and whose object is a :class:`Source` or a class of it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bmsfed_app.datasets.av_digits import AvDigits
from bmsfed_app.datasets.ave import Ave
from bmsfed_app.datasets.avletters import AvLetters
from bmsfed_app.datasets.base import DataError, Dataset, DatasetInfo, Renderer, Split
from bmsfed_app.datasets.cg_digits import CgDigits
from bmsfed_app.datasets.cg_mnist import CgMnist
from bmsfed_app.datasets.crema_d import CremaD
from bmsfed_app.datasets.crisismmd import CrisisMmd
from bmsfed_app.datasets.modelnet40 import ModelNet40
from bmsfed_app.datasets.mvsa import Mvsa
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import Source, SourceSettings
from bmsfed_app.datasets.table import Table
from bmsfed_app.datasets.utd_mhad import UtdMhad
from bmsfed_app.paths import default_data_dir

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "PreparedSource",
    "Renderer",
    "Sample",
    "Scan",
    "Source",
    "SourceSettings",
    "Split",
    "dataset_info",
    "dataset_names",
    "ensure_prepared",
    "find_source",
    "load_dataset",
]

SPLITS = ("train", "test")

#: The data sets that ship with the app, by name.
DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        CgDigits(),
        CgMnist(),
        CremaD(),
        Ave(),
        ModelNet40(),
        CrisisMmd(),
        AvLetters(),
        UtdMhad(),
        AvDigits(),
        Mvsa(),
        Table(),
    )
}


def dataset_names() -> list[str]:
    """Names of all data sets: ours, then those of other installed packages."""
    return list(dict.fromkeys([*DATASETS, *_installed()]))


def find_source(name: str) -> Source:
    """Return a data set by name.

    Raises
    ------
    DataError
        If there is none, or another package's cannot be loaded.
    """
    if name in DATASETS:
        return DATASETS[name]
    found = _installed()
    if name not in found:
        near = difflib.get_close_matches(name, dataset_names(), 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(f"unknown data set '{name}'{hint} (known: {', '.join(dataset_names())})")
    try:
        loaded = found[name].load()
    except Exception as error:  # whatever another package's import raises
        raise DataError(
            f"the data set '{name}' of {found[name].value} cannot be loaded ({error}): mend or "
            "remove that package"
        ) from error
    source: Source = loaded() if isinstance(loaded, type) else loaded
    return source


def dataset_info(name: str, settings: Mapping[str, Any] | None = None) -> DatasetInfo:
    """Return what is known of a data set without loading it, from its plain settings.

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
    settings: Mapping[str, Any] | None = None,
    splits: Sequence[str] = SPLITS,
) -> Dataset:
    """Load splits of a data set, once per process.

    Parameters
    ----------
    name : str
        See :func:`dataset_names`.
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
        If there is no such data set, split or setting, or the data cannot be read or has not been
        prepared.
    """
    source = find_source(name)
    parsed = source.parse(settings or {})
    if unknown := [s for s in splits if s not in SPLITS]:
        raise DataError(f"unknown split '{unknown[0]}' of '{name}' (known: {', '.join(SPLITS)})")
    plain = json.dumps(dict(settings or {}), sort_keys=True)
    folder = _folder(name, data_dir)
    loaded = {s: _cached_split(name, s, folder, seed, plain) for s in splits}
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
def _cached_split(name: str, split: str, folder: Path, seed: int, plain: str) -> Split:
    source = find_source(name)
    return source.load_split(split, folder, seed, source.parse(json.loads(plain)))


@lru_cache(maxsize=1)
def _installed() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group="bmsfed.datasets")}
