"""A small data set of files: two numbers in a .npy file and a note a sample, listed in a CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from bmsfed_app.datasets import DATASETS, DataError, PreparedSettings, PreparedSource, Sample, Scan
from bmsfed_app.datasets.base import DatasetInfo
from bmsfed_app.datasets.kinds import Array, Kind, Text

HEAD = ("id", "split", "label", "client", "key", "note")


class ReadingsSettings(PreparedSettings):
    """What they are called, and their classes."""

    title: str = "wards"
    classes: tuple[str, ...] = Field(("calm", "tense"))


class Readings(PreparedSource):
    """Listed in ``list.csv``; the numbers of sample x are in ``x.npy``."""

    name = "readings"
    summary = "two numbers and a note"
    obtain = "Made by tests."
    layout = "list.csv and <id>.npy"
    natural = "wards"
    settings = ReadingsSettings

    def info(self, settings: ReadingsSettings) -> DatasetInfo:
        known = vars(super().info(settings))
        return DatasetInfo(**known | {"name": settings.title})

    def kinds(self, settings: Any) -> dict[str, Kind]:
        return {"pair": Array((2,), "float32", encoder="mlp"), "note": Text(3)}

    def classes(self, settings: ReadingsSettings) -> tuple[str, ...]:
        return settings.classes

    def scan(self, data_dir: Path, settings: ReadingsSettings) -> Scan:
        scan, file = Scan(), data_dir / "list.csv"
        if not file.is_file():
            raise DataError(f"no file {file}")
        with file.open(newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                if row["label"] not in settings.classes:
                    reason = f"list.csv line {number} has label '{row['label']}'"
                    scan.leave_out(f"line {number}", reason, row["split"], "unknown label")
                    continue
                values = {"pair": data_dir / f"{row['id']}.npy", "note": row["note"]}
                label = settings.classes.index(row["label"])
                sample = (row["id"], row["split"], label, values, row["client"], row["key"])
                scan.samples.append(Sample(*sample))
        return scan


def register(monkeypatch: pytest.MonkeyPatch, source: PreparedSource | None = None) -> None:
    """Make the data set known for as long as a test takes."""
    monkeypatch.setitem(DATASETS.own, Readings.name, source or Readings())


def rows(number: int = 20) -> list[list[str]]:
    """Every fifth is a test sample; wards a and b take turns, as do the classes."""
    return [
        [
            str(i),
            "test" if i % 5 == 0 else "train",
            ("calm", "tense")[i // 2 % 2],
            "ab"[i % 2],
            "",
            "x",
        ]
        for i in range(number)
    ]


def write(folder: Path, listed: list[list[str]], files: bool = True) -> Path:
    """Write the list, and the numbers of all samples that it names."""
    folder.mkdir(exist_ok=True)
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEAD, *listed])
    for row in listed if files else []:
        np.save(
            folder / f"{row[0]}.npy", np.array([int(row[0]), int(row[0]) % 3], dtype=np.float32)
        )
    return folder
