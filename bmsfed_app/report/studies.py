"""Runs that belong together: those that saw the same data, and of these the seeds of one series."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from bmsfed_app.config import MACHINE_KEYS, ExperimentConfig
from bmsfed_app.record.run import Run, read_run
from bmsfed_app.record.summary import points
from strategies import Metric

#: Besides the keys of the machine, what does not tell the settings of two runs of a method apart.
_NO_SETTINGS = {"seed", "method", "methods", *MACHINE_KEYS}

#: What a key that a run's configuration lacks stood for: a new key's default is what was done
#: before there was the key.
_DEFAULTS = {
    key: field.get_default(call_default_factory=True)
    for key, field in ExperimentConfig.model_fields.items()
    if not field.is_required()
}

#: Digits of a fingerprint that a title has at least.
_DIGITS = 6


@dataclass(frozen=True)
class Series:
    """Runs that differ in nothing but the seed (and in where they ran)."""

    label: str
    runs: list[Run]

    def comparable(self) -> list[Run]:
        """Return the complete runs, one per seed: what a mean over seeds may be taken of."""
        found: dict[int, Run] = {}
        for run in self.runs:
            if run.complete:
                found.setdefault(run.seed, run)
        return list(found.values())

    def run_label(self, run: Run) -> str:
        """Return a name that is unique among the runs of a report."""
        same = [r for r in self.runs if r.seed == run.seed]
        label = f"{self.label}, seed {run.seed}"
        if len(same) == 1:
            return label
        names = [r.path.name for r in same]
        folder = run.path.name if names.count(run.path.name) == 1 else str(run.path)
        return f"{label} ({folder})"


@dataclass(frozen=True)
class Study:
    """Runs that saw the same data, to be laid over each other.

    Attributes
    ----------
    title : str
        The data set's name, with the start of the data's fingerprint where studies share a name.
    modalities : tuple of str
    series : list of Series
    """

    title: str
    modalities: tuple[str, ...]
    series: list[Series]

    @cached_property
    def columns(self) -> list[tuple[Metric, str | None]]:
        """The metrics that any run has values of; with the modality, where it is by those.

        Metrics of one axis stand together.
        """
        declared = {m.name: m for _, run in self.runs() for m in run.info.metrics}
        axes = list(dict.fromkeys(m.axis for m in declared.values()))
        return [
            (metric, one)
            for metric in sorted(declared.values(), key=lambda m: axes.index(m.axis))
            for one in (self.modalities if metric.by_modality else (None,))
            if any(points(run.rounds, metric, one) for _, run in self.runs())
        ]

    def axes(self) -> list[tuple[str, list[tuple[Metric, str | None]]]]:
        """Return what the metrics are of, each with its columns."""
        return [(axis, list(own)) for axis, own in groupby(self.columns, lambda c: c[0].axis)]

    def runs(self) -> Iterator[tuple[Series, Run]]:
        """Yield every run with its series."""
        for series in self.series:
            for run in series.runs:
                yield series, run


# --- grouping -----------------------------------------------------------------------------------


def group(runs: Sequence[Run]) -> list[Study]:
    """Group runs by the data that they saw, and within these by everything but the seed.

    Runs from before the data was recorded form groups of their own, by the data set's name, folder
    and settings: what they saw may have changed without a trace.

    Parameters
    ----------
    runs : sequence of Run
        In the order that the report keeps.

    Returns
    -------
    list of Study
        Series of one method carry the settings in their label that tell them apart.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.dataset, *_data(run)), []).append(run)
    studies = []
    for title, own in zip(_titles(list(groups)), groups.values(), strict=True):
        modalities = tuple(dict.fromkeys(m for run in own for m in run.modalities))
        studies.append(Study(title, modalities, _series(own)))
    return studies


def _data(run: Run) -> tuple[str, ...]:
    """What tells the data of two runs on data sets of one name apart; a fingerprint comes first."""
    if run.info.data:
        return (run.info.data,)
    config = _DEFAULTS | run.config
    return "", str(config["data_dir"]), _text(config["dataset_settings"])


def _titles(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """Name the studies: by their data sets, and by more where several share a name."""
    names = [name for name, *_ in keys]
    prints = {data for _, data, *_ in keys}
    digits = _DIGITS
    while len({data[:digits] for data in prints}) < len(prints):
        digits += 1
    titles: list[str] = []
    for name, data, *_ in keys:
        about = f"data {data[:digits]}" if data else "data not recorded"
        titles.append(f"{name} ({about})" if names.count(name) > 1 else name)
    again = [titles[:place].count(title) for place, title in enumerate(titles)]
    return [f"{t} {n + 1}" if n else t for t, n in zip(titles, again, strict=True)]


def _series(runs: Sequence[Run]) -> list[Series]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, _text(_settings(run))), []).append(run)
    members = [sorted(group, key=lambda r: r.seed) for group in groups.values()]
    return [Series(_label(own[0], [m[0] for m in members]), own) for own in members]


def _settings(run: Run) -> dict[str, Any]:
    """Every setting that tells runs of one method apart, by dotted name."""
    config = {k: v for k, v in (_DEFAULTS | run.config).items() if k not in _NO_SETTINGS}
    config["clients"] = config["clients"] or len(run.clients)  # 0: as many as there were
    if run.info.partition_file:  # the file's name says little of what was in it
        config["partition_file"] = run.info.partition_file
    methods = run.config.get("methods") or {}
    own = methods.get(run.method) or {}
    # Some methods have a key that the experiment has as well, such as alpha.
    own = {f"{run.method}.{k}" if k in config else k: value for k, value in own.items()}
    return dict(_flat(config | own))


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    """Write values so that equal ones have equal texts: 1 as 1.0."""

    def _plain(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {str(key): _plain(below) for key, below in one.items()}
        if isinstance(one, list | tuple):
            return [_plain(below) for below in one]
        return float(one) if isinstance(one, int) and not isinstance(one, bool) else one

    return json.dumps(_plain(value), sort_keys=True, default=str)


def _label(run: Run, others: Sequence[Run]) -> str:
    """Name a series: its method, and what differs from other series of that method."""
    rivals = [_settings(o) for o in others if o.method == run.method]
    mine = _settings(run)
    keys = [k for k in sorted({k for r in rivals for k in r}) if len(_values(rivals, k)) > 1]
    parts = [f"{k} {mine.get(k, 'default')}" for k in keys]
    return ", ".join([run.method, *parts])


def _values(settings: Sequence[Mapping[str, Any]], key: str) -> set[str]:
    return {_text(s.get(key, "default")) for s in settings}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; one that is given twice is read once.

    Raises
    ------
    RunFolderError
        If one of them is missing, is no run folder, is empty or is damaged.
    """
    unique = {Path(f).resolve(): Path(f) for f in reversed(folders)}
    return [read_run(folder) for folder in reversed(unique.values())]
