"""Runs whose folders are not at hand, by the ``runs.csv`` that earlier reports wrote of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bmsfed_app.record.files import RunFolderError
from bmsfed_app.report import sweep_curves
from bmsfed_app.report.sweep_curves import Curves, read_curves

#: A report's file with a line for every run.
NAME = "runs.csv"
_CLOSING, _LAST = "mean_last", "last"
_NEEDED = {"folder", "complete", "seconds", "commit", "started", "hardware"}


class Origin(NamedTuple):
    """Where and when a run was made, the seconds that its rounds took, how exactly it was computed,
    and the data's fingerprint; empty where that is not known."""

    seconds: float
    commit: str
    source: str
    started: str
    hardware: str
    precision: str
    data: str


@dataclass
class EarlierRun:
    """What a report says of one complete run.

    Attributes
    ----------
    origin : Origin
    values : dict
        "mean_last" and "last" as readers see them (shares in percent), by the metric's name, which
        ends with the modality where it is by modality: "accuracy_by_modality.gray". NaN or infinite
        where the run's was, as the loss of one that diverged.
    curves : dict
        The same by round, where the report has them.
    """

    origin: Origin
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)


def read_earlier(places: Sequence[Path]) -> dict[str, EarlierRun]:
    """Read what earlier reports say of complete runs, in ``runs.csv`` and ``curves.csv`` beside it.

    Parameters
    ----------
    places : sequence of Path
        Files, or folders: of these, every ``runs.csv`` below them.

    Returns
    -------
    dict
        By the name of the run's folder. Of a run that was made several times, the newest.

    Raises
    ------
    RunFolderError
        If there is no such file, or it is none that a report writes.
    """
    found: dict[str, EarlierRun] = {}
    for file in [f for place in places for f in _files(place)]:
        for name, run in _read(file):
            known = found.get(name)
            if known is None or run.origin.started > known.origin.started:
                found[name] = run
            elif run.origin.started == known.origin.started:  # another report's, with other metrics
                known.values |= run.values
                known.curves |= run.curves
    return found


def _files(place: Path) -> list[Path]:
    found = sorted(place.rglob(NAME)) if place.is_dir() else [place]
    if not found or not found[0].is_file():
        raise RunFolderError(
            f"--also: there is no {NAME} at '{place}': name one that a report wrote"
        )
    return found


def _read(file: Path) -> list[tuple[str, EarlierRun]]:
    beside = file.with_name(sweep_curves.NAME)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            table = csv.DictReader(lines)
            if lacking := sorted(_NEEDED - set(table.fieldnames or ())):
                raise ValueError(f"it has no column '{lacking[0]}'")
            runs = [(row["folder"], _run(row)) for row in table if row["complete"] == "True"]
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(
            f"--also: '{file}' is not what a report of a sweep writes ({error}): name a {NAME}"
        ) from None
    try:
        curves = read_curves(beside) if beside.is_file() else {}
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(
            f"--also: '{beside}' is not what a report of a sweep writes ({error}): remove it"
        ) from None
    for name, run in runs:  # never those of another time
        run.curves = curves.get((name, run.origin.started), {})
    return runs


def _run(row: dict[str, str]) -> EarlierRun:
    texts = (row.get(k) or "" for k in Origin._fields[1:])
    run = EarlierRun(Origin(float(row["seconds"]), *texts))
    for head, text in row.items():
        name, _, statistic = head.rpartition(".")
        if name and statistic == _CLOSING and text:
            run.values[name] = {_CLOSING: float(text), _LAST: float(row[f"{name}.{_LAST}"])}
    return run
