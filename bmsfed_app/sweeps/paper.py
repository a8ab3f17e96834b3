"""The paper's own numbers, to stand beside those of a sweep."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from bmsfed_app.sweeps.spec import known_name


class PaperCell(NamedTuple):
    """What a number of the paper is of, by the names of the sweep files.

    Attributes
    ----------
    method, dataset, partition, setting : str
        Empty on an axis that the table has not.
    metric : str
        A metric's name; followed by a point and the modality where it is of one, as in
        "accuracy_by_modality.audio".
    """

    method: str
    dataset: str
    partition: str
    setting: str
    metric: str


def paper_names() -> list[str]:
    """Names of the tables whose numbers ship with the app."""
    return [p.stem for p in _files()]


def paper_values(name: str) -> dict[PaperCell, float]:
    """Read the paper's numbers of a table.

    Parameters
    ----------
    name : str
        As a sweep file's ``paper`` has it, such as "table2".

    Returns
    -------
    dict
        The numbers as printed, in percent, in the paper's order.

    Raises
    ------
    SweepError
        If there is no such table.
    """
    known_name("paper", name, paper_names())
    [file] = [p for p in _files() if p.stem == name]
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {
            PaperCell(*(row[k] for k in PaperCell._fields)): float(row["value"]) for row in rows
        }


def _files() -> list[Path]:
    """CSV files of a checkout, or inside the package (a wheel); none in a Flower bundle."""
    package = Path(str(resources.files("bmsfed_app")))
    inside = package / "paper"
    folder = inside if inside.is_dir() else package.parent / "results" / "paper"
    return sorted(folder.glob("*.csv"))
