"""The runs of a sweep: each an experiment that is known to be right, with a folder of its own."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bmsfed_app.config import (
    MACHINE_KEYS,
    ConfigError,
    ExperimentConfig,
    config_names,
    config_of,
    read_values,
)
from bmsfed_app.datasets import DATASETS
from bmsfed_app.devices import Precision
from bmsfed_app.paths import home
from bmsfed_app.record.files import is_complete
from bmsfed_app.registry import nearest
from bmsfed_app.sweeps.spec import (
    DEFAULT_SCALE,
    DataEntry,
    Entry,
    MethodEntry,
    Scale,
    SweepError,
    SweepFile,
    chosen,
    find_sweep,
    known_name,
    read_sweep,
    tuned_settings,
)

#: Digits of a run's key in its folder's name.
_DIGITS = 12
#: What ``precision: auto`` may be; of two complete runs alike the first counts.
_STANDS_FOR: tuple[Precision, ...] = ("bf16", "float32")


@dataclass(frozen=True)
class SweepRun:
    """One run.

    Attributes
    ----------
    method, dataset, partition, setting : str
        Names from the sweep file; empty on an axis that it has not.
    seed : int
    config : ExperimentConfig
    key : str
        See :func:`run_key`.
    alike : dict
        See :func:`alike_keys`.
    needs : str
        What its data set's entry says must be brought.
    """

    method: str
    dataset: str
    partition: str
    setting: str
    seed: int
    config: ExperimentConfig
    key: str
    needs: str = ""
    alike: Mapping[Precision, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self._name(self.key)

    @property
    def names(self) -> dict[str, Precision]:
        """Precisions by the name of a folder: the run's own first, then those alike."""
        own: dict[str, Precision] = {self.name: self.config.precision}
        return own | {self._name(key): precision for precision, key in self.alike.items()}

    def _name(self, key: str) -> str:
        config = self.config
        return f"{config.dataset_name}-{config.method}-s{self.seed}-{key[:_DIGITS]}"

    @property
    def label(self) -> str:
        """What messages call it."""
        parts = (self.method, self.dataset, self.partition, self.setting, f"seed {self.seed}")
        return ", ".join(p for p in parts if p)

    def folder(self, root: Path) -> Path:
        """Return the run's folder below a root: one alike, where that is complete and its own
        is not."""
        names = self.names if self.alike else ()
        return next(filter(is_complete, (root / name for name in names)), root / self.name)


@dataclass(frozen=True)
class Sweep:
    """A sweep at one scale.

    Attributes
    ----------
    source : str
        As given.
    scale : str
    title, paper, metrics, baselines
        See :class:`SweepFile`.
    runs : list of SweepRun
        In the order in which they are started: seed by seed, so that every cell has one early.
    """

    source: str
    scale: str
    title: str
    paper: str
    metrics: tuple[str, ...]
    baselines: tuple[str, ...]
    runs: list[SweepRun]


def default_root() -> Path:
    """Return where sweeps keep their runs when nobody says."""
    return home() / "sweeps"


def run_key(config: ExperimentConfig) -> str:
    """Return what a run is known by: a hash of all that decides what it computes.

    Parameters
    ----------
    config : ExperimentConfig
        What says where and how fast it runs does not count, nor do settings of methods that it
        does not use, nor the name of a variant: only what the method is and how it is set.

    Returns
    -------
    str
        64 hexadecimal digits of SHA-256.
    """
    left_out = {*MACHINE_KEYS, "method", "methods"}
    own = config.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    base = config.methods.get(config.method, {}).get("base", config.method)
    method = {"name": base, **config.method_settings().model_dump(mode="json")}
    text = json.dumps({**own, "method": method}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def alike_keys(config: ExperimentConfig) -> dict[Precision, str]:
    """Return the keys of runs that count as one where they are complete, by their precision:
    those that ``precision: auto`` stands for."""
    if config.precision != "auto":
        return {}
    return {p: run_key(config.model_copy(update={"precision": p})) for p in _STANDS_FOR}


def load_sweep(
    source: str,
    scale: str = DEFAULT_SCALE,
    *,
    on: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    data_dirs: Mapping[str, str] | None = None,
) -> Sweep:
    """Read a sweep and check all its runs.

    Parameters
    ----------
    source : str
        Path of a YAML file, or the name of one that ships with the app.
    scale : str, default "desk"
    on : sequence of str, optional
        Data sets in place of the file's: entries of it, at the scale or not, by their names, and
        configurations.
    overrides : mapping, optional
        Keys of all runs, over all that the file says.
    data_dirs : mapping, optional
        Data folders by the name of a data set, or of its entry; "" is for all others.

    Raises
    ------
    SweepError
        One message that names the run, the culprit and the remedy: nothing has been started.
    """
    file, path = read_sweep(source), find_sweep(source)
    known_name("scale", scale, list(file.scales))
    made = _Maker(path.parent, dict(overrides or {}), dict(data_dirs or {}))
    runs = [made.run(file, file.scales[scale], *cell) for cell in _cells(file, scale, on)]
    if not runs:
        raise SweepError(f"sweep '{source}' has no run at scale '{scale}': see its 'only' lists")
    made.check_dirs([entry.name for entry in file.datasets])
    _check_distinct(runs)
    there = {r.method for r in runs}
    baselines = tuple(name for name in file.baselines if name in there)
    title = file.title or path.stem
    return Sweep(source, scale, title, file.paper, tuple(file.metric), baselines, runs)


def parse_dirs(given: Sequence[str]) -> dict[str, str]:
    """Return data folders by name, from NAME=FOLDER; "" is that of a folder alone."""
    parts = [text.partition("=") for text in given]
    return {(n if equals else ""): folder if equals else n for n, equals, folder in parts}


def data_dir_of(dirs: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return ``data_dir`` for what has any of these names, the first before others; or nothing."""
    return next(({"data_dir": dirs[n]} for n in [*names, ""] if n in dirs), {})


def check_dirs(dirs: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse data folders of what is neither one of some names nor a shipped data set.

    Raises
    ------
    SweepError
        With the nearest name.
    """
    known = {*names, *config_names(), *DATASETS.names()}
    for name in sorted(dirs.keys() - known - {""}):
        near = nearest(name, known) or f" (there are: {', '.join(sorted(known))})"
        raise SweepError(f"--data-dir: there is no data set '{name}'{near}")


#: Seed, data set, what else is set, method.
_Cell = tuple[int, DataEntry, Entry, Entry, MethodEntry]
#: Stands on an axis that a sweep has not.
_NONE = Entry.model_construct(name="", set={}, only=[])


def _cells(file: SweepFile, scale: str, on: Sequence[str]) -> Iterator[_Cell]:
    """Yield every combination that is to be run, seed by seed."""
    part, entries = file.scales[scale], {e.name: e for e in file.datasets}
    axes = product(
        part.seeds or file.seeds,
        [entries.get(n) or DataEntry(name=n) for n in on] or chosen(file.datasets, part.datasets),
        chosen(file.partitions, part.partitions) or [_NONE],
        chosen(file.settings, part.settings) or [_NONE],
        chosen(file.methods, part.methods),
    )
    for seed, data, *others in axes:
        if all(not e.only or data.name in e.only for e in others):
            partition, setting, method = others
            assert isinstance(method, MethodEntry)
            yield seed, data, partition, setting, method


class _Maker:
    """Makes the runs of a sweep, reading each configuration once."""

    def __init__(self, folder: Path, overrides: dict[str, Any], dirs: dict[str, str]) -> None:
        self._folder, self._overrides, self._dirs = folder, overrides, dirs
        self._read = functools.cache(read_values)
        self._known: set[str] = set()

    def check_dirs(self, others: Sequence[str]) -> None:
        """Refuse data folders of what is no data set, of these runs or of others."""
        check_dirs(self._dirs, [*self._known, *others])

    def run(
        self,
        file: SweepFile,
        scale: Scale,
        seed: int,
        data: DataEntry,
        partition: Entry,
        setting: Entry,
        method: MethodEntry,
    ) -> SweepRun:
        values = file.set | scale.set | scale.sets.get(data.name, {}) | data.set
        values |= partition.set | setting.set | tuned_settings(method, self._folder) | method.set
        over = self._overrides | {"seed": seed, "method": method.method or method.name}
        source = scale.configs.get(data.name) or data.config or data.name
        if (self._folder / source).is_file():
            source = str(self._folder / source)
        names = (method.name, data.name, partition.name, setting.name)
        try:
            read = self._read(source)
            over |= self._data_dir(data.name, Path(source).stem, {**read, **values, **over})
            config = config_of(read, values, over)
        except ConfigError as error:
            label = ", ".join(n for n in names if n)
            raise SweepError(f"run '{label}, seed {seed}': {error}") from None
        key, alike = run_key(config), alike_keys(config)
        return SweepRun(*names, seed, config, key, data.needs, alike)

    def _data_dir(self, entry: str, file: str, values: Mapping[str, Any]) -> dict[str, str]:
        """Return where the data is, if somebody said so."""
        names = [entry, file, str(values.get("dataset", ""))]
        self._known |= {*names}
        return data_dir_of(self._dirs, names)


def _check_distinct(runs: Sequence[SweepRun]) -> None:
    """Refuse two entries that mean one run: a table would show it twice."""
    seen: dict[str, SweepRun] = {}
    for run in runs:
        keys = (run.key, *run.alike.values())
        if other := next((seen[key] for key in keys if key in seen), None):
            raise SweepError(
                f"'{other.label}' and '{run.label}' are the same run: leave one out, or change "
                "what it sets"
            )
        seen |= dict.fromkeys(keys, run)
