"""One's own data without writing a loader: a table with a row per sample.

A CSV (or Parquet) file has a column for the label, and one or more for each modality: the path of a
file, a text, or numbers. Optional columns name the split and the natural client. See
:class:`TableSettings` for what the YAML file says of them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from bmsfed_app.checked import Settings
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Array, Audio, Frames, Image, Kind, Series, Text
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, SourceSettings
from strategies.randomness import generator


class Column(Settings):
    """How one modality stands in the table; each ``type`` has keys of its own.

    ``audio`` (``rate``, ``seconds``, ``window``, ``hop``): a path. ``image`` (``side``, ``crop``):
    a path. ``video`` (``frames``, ``side``, ``most``, ``spacing``): a path. ``text`` (``tokens``,
    ``tokenizer``): the text itself, or with ``file: true`` a path. ``series`` (``steps``,
    ``features``): the path of a .npy, .csv or .txt file of (any steps, features), stretched.
    ``array`` (``shape``, ``offset``, ``scale``): the path of such a file. ``numbers`` (``columns``,
    ``offset``, ``scale``): the columns themselves. Paths are relative to the data folder. Arrays
    and numbers enter the model as (value - offset) / scale.
    """

    type: Literal["audio", "image", "video", "text", "series", "array", "numbers"]
    column: str = ""
    columns: tuple[str, ...] = ()
    file: bool = False
    rate: int = Field(16_000, ge=1000)
    seconds: float = Field(3.0, gt=0)
    window: int = Field(512, ge=16)
    hop: int = Field(159, ge=1)
    side: int = Field(224, ge=28)
    crop: bool = True
    frames: int = Field(3, ge=1)
    most: int = Field(5, ge=1)
    spacing: float = Field(1.0, gt=0)
    tokens: int = Field(40, ge=1)
    tokenizer: str = "hash"
    steps: int = Field(0, ge=0)
    features: int = Field(0, ge=0)
    shape: tuple[int, ...] = ()
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    @model_validator(mode="after")
    def _complete(self) -> Column:
        wanted = {"series": ("steps", "features"), "array": ("shape",), "numbers": ("columns",)}
        if absent := [k for k in wanted.get(self.type, ()) if not getattr(self, k)]:
            raise ValueError(f"type {self.type} needs the key '{absent[0]}'")
        return self

    def kind(self) -> Kind:
        """How the modality is decoded."""
        makers: dict[str, Callable[[], Kind]] = {
            "audio": partial(Audio, self.rate, self.seconds, self.window, self.hop),
            "image": partial(Image, self.side, crop=self.crop),
            "video": partial(
                Frames,
                self.frames,
                self.side,
                most=max(self.most, self.frames),
                spacing=self.spacing,
                crop=self.crop,
            ),
            "text": partial(Text, self.tokens, self.tokenizer),
            "series": partial(Series, self.steps, self.features),
            "array": partial(Array, self.shape, offset=self.offset, scale=self.scale),
            "numbers": partial(Array, (len(self.columns),), offset=self.offset, scale=self.scale),
        }
        return makers[self.type]()

    def value(self, row: Mapping[str, str], modality: str, folder: Path) -> Any:
        """What the modality of a row is decoded from."""
        if self.type == "numbers":
            return np.array([float(row[c]) for c in self.columns], dtype=np.float32)
        text = row[self.column or modality]
        if self.type == "text" and not self.file:
            return text
        if not text.strip():
            raise ValueError(f"column '{self.column or modality}' is empty")
        return folder / text


class TableSettings(SourceSettings):
    """Settings of ``table``.

    Attributes
    ----------
    modalities : dict
        :class:`Column` by modality, strong first; ``column`` is the modality's name if left out.
    classes : tuple of str
        The labels in the order of their numbers; exactly what stands in the label column.
    table : str
        File in the data folder, .csv or .parquet.
    label, split, client, id : str
        Names of columns; the last three may lack in the table. ``split`` holds "train" or "test";
        other rows are left out.
    test_share : float
        Without a split column: share of every class drawn as the test split, once for all.
    """

    modalities: dict[str, Column] = Field(min_length=2)
    classes: tuple[str, ...] = Field(min_length=2)
    table: str = "samples.csv"
    label: str = "label"
    split: str = "split"
    client: str = "client"
    id: str = "id"
    test_share: float = Field(0.2, gt=0, lt=1)


class Table(PreparedSource):
    """A table of one's own files; natural clients are what its client column names."""

    name = "table"
    summary = "your own samples, a row each in a CSV or Parquet file"
    obtain = "Your own; `dataset_settings` in your YAML file describe its columns."
    layout = "samples.csv (or the file named by `table`) and the files that it names"
    natural = "clients"
    settings = TableSettings

    def kinds(self, settings: TableSettings) -> dict[str, Kind]:
        """As the settings describe the columns."""
        return {m: column.kind() for m, column in settings.modalities.items()}

    def classes(self, settings: TableSettings) -> tuple[str, ...]:
        """As the settings list them."""
        return tuple(str(c) for c in settings.classes)

    def scan(self, data_dir: Path, settings: TableSettings) -> Scan:
        """List the rows of the table."""
        file = data_dir / settings.table
        rows = _read(file)
        self._check_columns(file, rows[0], settings)
        names, scan = self.classes(settings), Scan()
        drawn = None if settings.split in rows[0] else _draw(rows, settings)
        for number, row in enumerate(rows, start=2):
            where = f"{file.name} line {number}"
            split = row[settings.split] if drawn is None else drawn[number - 2]
            if split not in ("train", "test"):
                continue
            if row[settings.label] not in names:
                label = row[settings.label]
                scan.leave_out(where, f"{where} has label '{label}', not {', '.join(names)}")
                continue
            try:
                values = {m: c.value(row, m, data_dir) for m, c in settings.modalities.items()}
            except ValueError as error:
                scan.leave_out(where, f"{where}: {error}")
                continue
            name = row.get(settings.id) or str(number - 2)
            client = row.get(settings.client, "")
            scan.samples.append(
                Sample(name, split, names.index(row[settings.label]), values, client)
            )
        if drawn is not None:
            scan.notes.append(
                f"no column '{settings.split}': {settings.test_share:.0%} of every class, drawn "
                "once for all, is the test split"
            )
        return scan

    @staticmethod
    def _check_columns(file: Path, row: Mapping[str, str], settings: TableSettings) -> None:
        wanted = [settings.label]
        for modality, column in settings.modalities.items():
            wanted += column.columns or [column.column or modality]
        if absent := [c for c in wanted if c not in row]:
            raise DataError(
                f"{file} has no column '{absent[0]}' (it has {', '.join(row)}): mend the table or "
                "dataset_settings"
            )


DATASETS.add(Table.name, Table())


def _read(file: Path) -> list[dict[str, str]]:
    try:
        rows = _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file)
    except FileNotFoundError:
        raise DataError(f"no file {file}: name it by `table` in dataset_settings") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"cannot read {file} ({error}): it must be CSV in UTF-8, or Parquet"
        ) from None
    if not rows:
        raise DataError(f"{file} has no rows")
    return rows


def _read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="")
        rows = list(reader)
    if long := [i for i, row in enumerate(rows, start=2) if None in row]:
        raise ValueError(f"line {long[0]} has more values than the head has columns")
    return rows


def _read_parquet(file: Path) -> list[dict[str, str]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError("Parquet is read by pyarrow: pip install 'bmsfed[table]'") from None
    rows = parquet.read_table(file).to_pylist()
    return [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]


def _draw(rows: list[dict[str, str]], settings: TableSettings) -> list[str]:
    """Draw the test split: a share of every class."""
    labels = np.array([row[settings.label] for row in rows])
    splits = np.full(len(rows), "train", dtype=object)
    rng = generator(0, "table")
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        splits[own[: round(settings.test_share * len(own))]] = "test"
    return [str(s) for s in splits]
