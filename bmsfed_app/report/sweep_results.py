"""What the runs of a sweep came to, by method and column of a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from bmsfed_app.config import ConfigError, check_config
from bmsfed_app.record.files import RunFolderError, is_complete, read_config
from bmsfed_app.record.rows import COUNTED_METRICS, STANDARD_METRICS
from bmsfed_app.record.run import Run, read_run
from bmsfed_app.record.summary import Summary, summary
from bmsfed_app.report.earlier_runs import EarlierRun, Origin, read_earlier
from bmsfed_app.report.sweep_curves import Curves, curves_of
from bmsfed_app.sweeps import Sweep, SweepRun, run_key
from strategies import Metric

#: The statistics of a run: what it ended with, never its best round.
STATISTICS = ("mean_last", "last")
#: What every run has, as this version declares it: earlier ones said less of a metric.
_STANDARD = {m.name: m for m in (*STANDARD_METRICS, *COUNTED_METRICS)}


class Column(NamedTuple):
    """A column of a table: where runs were, and what is shown of them."""

    dataset: str
    partition: str
    setting: str
    metric: str

    @property
    def place(self) -> str:
        """Where its runs were."""
        return ", ".join(p for p in self[:3] if p)


@dataclass
class Results:
    """A sweep's runs, read.

    Attributes
    ----------
    sweep : Sweep
    origins : dict
        Of all complete runs, by the run's key.
    folders : dict
        Names of their folders, by key: of a run alike, where that was taken.
    told : int
        Complete runs of which an earlier report alone tells, as their folders are not at hand.
    curves : dict
        Numbers by round, by key; of runs of which an earlier report tells, where it has them.
    metrics : dict
        Metrics, by the name that columns have: "accuracy", "accuracy_by_modality.gray".
    values : dict
        A summary by seed, by (method, column).
    paper : dict
        The paper's own numbers by (method, column), as they stand there.
    missing : list of SweepRun
        Those that are not complete.
    """

    sweep: Sweep
    origins: dict[str, Origin] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    told: int = 0
    curves: dict[str, Curves] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    values: dict[tuple[str, Column], dict[int, Summary]] = field(default_factory=dict)
    paper: dict[tuple[str, Column], float] = field(default_factory=dict)
    missing: list[SweepRun] = field(default_factory=list)

    @cached_property
    def methods(self) -> list[str]:
        """Methods of the sweep, in its order."""
        return list(dict.fromkeys(r.method for r in self.sweep.runs))

    @cached_property
    def all_columns(self) -> list[Column]:
        """Columns of all metrics, place by place."""
        places = list(dict.fromkeys((r.dataset, r.partition, r.setting) for r in self.sweep.runs))
        names = list(self.metrics)
        found = {c: None for _, c in self.values}
        return sorted(found, key=lambda c: (places.index(c[:3]), names.index(c.metric)))

    @cached_property
    def columns(self) -> list[Column]:
        """Columns that are shown: those of the sweep's metrics, place by place."""
        return [column for column in self.all_columns if self._is_shown(column)]

    def _is_shown(self, column: Column) -> bool:
        return column.metric.partition(".")[0] in self.sweep.metrics

    def by_seed(self, method: str, column: Column, statistic: str) -> dict[int, float]:
        """Return values by seed as they are shown: shares in percent."""
        metric = self.metrics[column.metric]
        found = self.values.get((method, column), {})
        return {s: metric.shown(getattr(v, statistic)) for s, v in sorted(found.items())}

    def merit(self, method: str, column: Column) -> float | None:
        """Return the closing mean over seeds, the larger the better; None if it was not run.

        Minus infinity where it is not finite, as the loss of a run that diverged.
        """
        values = self.by_seed(method, column, STATISTICS[0]).values()
        if not values:
            return None
        if not math.isfinite(found := mean(values)):
            return -math.inf
        return -found if self.metrics[column.metric].lower_is_better else found

    def digits(self, column: Column) -> int:
        """Return how many decimals tables show."""
        return 1 if self.metrics[column.metric].unit == "%" else 3

    def label(self, metric: str) -> str:
        """Return what readers call a column's metric."""
        name, _, modality = metric.partition(".")
        return self.metrics[metric].label(modality or None) if metric in self.metrics else name

    def by_round(self) -> Iterator[tuple[SweepRun, Curves]]:
        """Yield the complete runs whose numbers by round are known."""
        for run in self.sweep.runs:
            if run.key in self.curves:
                yield run, self.curves[run.key]


def read_results(sweep: Sweep, root: Path, also: Sequence[Path] = ()) -> Results:
    """Read the complete runs of a sweep.

    Parameters
    ----------
    sweep : Sweep
    root : Path
        Folder of run folders.
    also : sequence of Path, optional
        ``runs.csv`` of earlier reports, or folders with such files below them: for runs whose
        folders are not at hand, as those of other machines. Each counts with the ``curves.csv``
        beside it.

    Raises
    ------
    RunFolderError
        If a run's folder is damaged, or holds a run of another configuration or version, or a file
        named by ``also`` is not what a report writes.
    """
    results, earlier = Results(sweep, paper=_paper(sweep.paper)), read_earlier(also)
    told: list[tuple[SweepRun, EarlierRun]] = []
    for run in sweep.runs:
        name = next((n for n in run.names if n in earlier or is_complete(root / n)), None)
        if name is None:
            results.missing.append(run)
            continue
        results.folders[run.key] = name
        if is_complete(folder := root / name):
            _check(run, folder)
            _take(results, run, read_run(folder))
        else:
            told.append((run, earlier[name]))
    for run, row in told:  # last, when metrics are known
        _take_told(results, run, row)
    _put_in_order(results)
    return results


def _put_in_order(results: Results) -> None:
    """Order origins and metrics as the sweep has its runs, whatever was read of what."""
    runs, origins, names = (
        results.sweep.runs,
        results.origins,
        dict[tuple[object, ...], list[str]](),
    )
    for (method, column), seeds in results.values.items():
        for seed in seeds:
            names.setdefault((method, *column[:3], seed), []).append(column.metric)
    places = [(r.method, r.dataset, r.partition, r.setting, r.seed) for r in runs]
    results.origins = {r.key: origins[r.key] for r in runs if r.key in origins}
    results.metrics = {n: results.metrics[n] for p in places for n in names.get(p, ())}


def _take(results: Results, run: SweepRun, found: Run) -> None:
    """Take in a run whose folder is at hand."""
    info, seconds = found.info, sum(r.seconds for r in found.rounds)
    about = info.commit or "", info.source or "", info.started, hardware_text(info.hardware)
    precision = info.precision or _set_to(results, run)
    results.origins[run.key] = Origin(seconds, *about, precision, info.data)
    read: dict[str, tuple[Metric, str | None]] = {}
    for metric in found.info.metrics:
        for modality in found.modalities if metric.by_modality else (None,):
            if (ended := summary(found.rounds, metric, modality)) is not None:
                name = f"{metric.name}.{modality}" if modality else metric.name
                _put(results, run, name, metric, ended)
                read[name] = results.metrics[name], modality
    results.curves[run.key] = curves_of(found, read)


def _take_told(results: Results, run: SweepRun, row: EarlierRun) -> None:
    """Take in a run of which an earlier report tells; a metric that no run at hand declares is
    kept as it was shown."""
    precision = row.origin.precision or _set_to(results, run)
    results.origins[run.key] = row.origin._replace(precision=precision)
    results.told += 1
    if row.curves:
        results.curves[run.key] = row.curves
    known = {m.name: m for m in (*_STANDARD.values(), *results.metrics.values())}
    for name, shown in row.values.items():
        base, _, modality = name.partition(".")
        title = f"{base} of {{modality}}" if modality else base
        metric = known.get(base) or Metric(base, title)
        unit = metric.shown(1.0)
        last, closing = (shown[s] / unit for s in ("last", "mean_last"))
        _put(results, run, name, metric, Summary(last=last, mean_last=closing, rounds=[]))


def _set_to(results: Results, run: SweepRun) -> str:
    """Return the precision that a run's configuration names."""
    return run.names[results.folders[run.key]]


def _put(results: Results, run: SweepRun, name: str, metric: Metric, ended: Summary) -> None:
    results.metrics.setdefault(name, _STANDARD.get(metric.name, metric))
    column = Column(run.dataset, run.partition, run.setting, name)
    results.values.setdefault((run.method, column), {})[run.seed] = ended


def hardware_text(found: object) -> str:
    """Write what a run says of its machine, which once was a mapping."""
    return (
        ", ".join(f"{k} {v}" for k, v in found.items()) if isinstance(found, dict) else str(found)
    )


def _check(run: SweepRun, folder: Path) -> None:
    """Refuse a folder that holds something else than its name says."""
    try:
        saved = check_config(read_config(folder / "config.yaml"))
    except ConfigError as error:
        why = f" ({error})"
    else:
        if not run.config.clients:  # as many as there were
            saved = saved.model_copy(update={"clients": 0})
        if run_key(saved) in (run.key, *run.alike.values()):
            return
        why = ""
    raise RunFolderError(
        f"'{folder}' is a run of another configuration, or of another version of this app{why}: "
        "move it away, and run it anew"
    )


def _paper(name: str) -> dict[tuple[str, Column], float]:
    """Read the paper's own numbers, beside the packages or inside them."""
    if not name:
        return {}
    package = Path(str(resources.files("bmsfed_app")))
    inside = package / "paper"
    folder = inside if inside.is_dir() else package.parent / "results" / "paper"
    file = folder / f"{name}.csv"
    if not file.is_file():
        raise RunFolderError(f"there are no numbers of the paper's '{name}' in '{folder}'")
    lines = [x for x in file.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    return {
        (row["method"], Column(row["dataset"], row["partition"], row["setting"], row["metric"])): (
            float(row["value"])
        )
        for row in csv.DictReader(lines)
    }
