"""Runs that belong together: those of one data set, and of these the seeds of one series."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from bmsfed_app.config import MACHINE_KEYS
from bmsfed_app.record.run import Run, read_run
from bmsfed_app.record.summary import points
from strategies import Metric

#: Besides the keys of the machine, what does not tell the settings of two runs of a method apart.
_NO_SETTINGS = {"seed", "method", "methods", *MACHINE_KEYS}


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
    """Runs on one data set, to be laid over each other."""

    dataset: str
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


# --- statistics ---------------------------------------------------------------------------------


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval (Student t; needs two values)."""
    n = len(values)
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)), half


# --- grouping -----------------------------------------------------------------------------------


def group(runs: Sequence[Run]) -> list[Study]:
    """Group runs by data set, and within one by everything but the seed.

    Parameters
    ----------
    runs : sequence of Run
        In the order that the report keeps.

    Returns
    -------
    list of Study
        One per data set. Series of one method carry the settings in their label that tell them
        apart.
    """
    studies = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        modalities = tuple(dict.fromkeys(m for run in own for m in run.modalities))
        studies.append(Study(dataset, modalities, _series(own)))
    return studies


def _series(runs: Sequence[Run]) -> list[Series]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        key = (run.method, json.dumps(_settings(run), sort_keys=True, default=str))
        groups.setdefault(key, []).append(run)
    members = [sorted(group, key=lambda r: r.seed) for group in groups.values()]
    return [Series(_label(own[0], [m[0] for m in members]), own) for own in members]


def _settings(run: Run) -> dict[str, Any]:
    """Every setting that tells runs of one method apart, by dotted name."""
    config = {k: v for k, v in run.config.items() if k not in _NO_SETTINGS}
    methods = run.config.get("methods")
    own = methods.get(run.method) if isinstance(methods, Mapping) else None
    return dict(_flat({**config, **(own if isinstance(own, Mapping) else {})}))


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _label(run: Run, others: Sequence[Run]) -> str:
    """Name a series: its method, and what differs from other series of that method."""
    rivals = [_settings(o) for o in others if o.method == run.method]
    mine = _settings(run)
    keys = [k for k in sorted({k for r in rivals for k in r}) if len(_values(rivals, k)) > 1]
    parts = [f"{k} {mine.get(k, 'default')}" for k in keys]
    return ", ".join([run.method, *parts])


def _values(settings: Sequence[Mapping[str, Any]], key: str) -> set[str]:
    return {str(s.get(key, "default")) for s in settings}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; one that is given twice is read once.

    Raises
    ------
    RunFolderError
        If one of them is missing, is no run folder, is empty or is damaged.
    """
    unique = {Path(f).resolve(): Path(f) for f in reversed(folders)}
    return [read_run(folder) for folder in reversed(unique.values())]
