"""How far the runs of a sweep are, and how long the others will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean

from bmsfed_app.record.files import RunFolderError, read_json, read_rows
from bmsfed_app.record.rows import RoundRow
from bmsfed_app.record.status import NAME, RunStatus
from bmsfed_app.sweeps.sweep import SweepRun


def rounds_done(folder: Path) -> int:
    """Return how many rounds of a run are complete; 0 of one that has not begun."""
    try:
        status = read_json(folder / NAME, RunStatus)
    except RunFolderError:
        return 0
    return max(status.round - status.going_on, 0)


def seconds_of(folder: Path) -> float:
    """Return the seconds that a run's rounds took, all its starts together."""
    rows, _ = read_rows(folder / "history.jsonl")
    return float(sum(row.seconds for row in rows if isinstance(row, RoundRow)))


class Estimate:
    """Seconds that runs take, by those that are complete.

    A run takes what the same one of other seeds took; else what those of its data set and setting
    took, of its data set, or of the sweep.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], list[float]] = {}

    def add(self, run: SweepRun, seconds: float) -> None:
        """Take in a complete run."""
        for key in _kin(run):
            self._known.setdefault(key, []).append(seconds)

    def of(self, run: SweepRun) -> float | None:
        """Return the seconds of a run; None if nothing like it has been run."""
        for key in _kin(run):
            if key in self._known:
                return mean(self._known[key])
        return None

    def left(
        self, runs: Iterable[SweepRun], at_once: int, done: Mapping[str, float] | None = None
    ) -> float | None:
        """Return the seconds until all of some runs are complete; None while that is not known.

        Parameters
        ----------
        runs : iterable of SweepRun
        at_once : int
            Runs beside each other.
        done : mapping, optional
            Shares of runs that are done already, by key.
        """
        each = [(run, self.of(run)) for run in runs]
        known = [(1 - (done or {}).get(run.key, 0.0)) * s for run, s in each if s is not None]
        if len(known) < len(each):
            return None
        return max(sum(known) / max(at_once, 1), max(known, default=0.0))


def _kin(run: SweepRun) -> list[tuple[str, ...]]:
    data = (run.dataset,)
    return [
        (*data, run.partition, run.setting, run.method),
        (*data, run.partition, run.setting, ""),
        data,
        (),
    ]
