"""One's own data without writing a loader: a table with a row per sample.

A file (CSV, Parquet, lines of JSON) has a column for the label, and one or more for each modality:
the path of a file, a text, or numbers. Optional columns name the split, the natural client, and
what samples of both splits must not share. docs/tables.md is the reference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bmsfed_app.datasets.base import DataError, DatasetInfo
from bmsfed_app.datasets.kinds import Kind
from bmsfed_app.datasets.prepared import PreparedSource, Scan
from bmsfed_app.datasets.source import DATASETS
from bmsfed_app.datasets.table.columns import Column
from bmsfed_app.datasets.table.learning import complete, learn
from bmsfed_app.datasets.table.listing import check_roles, list_samples
from bmsfed_app.datasets.table.rows import read_rows
from bmsfed_app.datasets.table.settings import COLUMN_TYPES, TableSettings

__all__ = ["COLUMN_TYPES", "Column", "Table", "TableSettings"]


class Table(PreparedSource):
    """A table of one's own files; natural clients are what its client column names."""

    name = "table"
    summary = "your own samples, a row each in a CSV, Parquet or JSON file"
    obtain = "Your own; `dataset_settings` in your YAML file describe its columns."
    layout = "samples.csv (or the file named by `table`) and the files that it names"
    natural = "clients"
    settings = TableSettings
    version = 2

    def resolve(self, settings: TableSettings, data_dir: Path) -> TableSettings:
        """Fill in columns by pattern, sizes, classes and statistics from the table."""
        return learn(settings, data_dir)

    def info(self, settings: TableSettings) -> DatasetInfo:
        """Return what is known without any file, under the name that the settings give.

        Raises
        ------
        DataError
            If the settings leave to the table what must be known; :meth:`resolve` fills it in.
        """
        self._check_complete(settings)
        return replace(super().info(settings), name=settings.name)

    def kinds(self, settings: TableSettings) -> dict[str, Kind]:
        """As the settings describe the columns."""
        self._check_complete(settings)
        return {m: column.kind() for m, column in settings.modalities.items()}

    def classes(self, settings: TableSettings) -> tuple[str, ...]:
        """As the settings list them."""
        self._check_complete(settings)
        return settings.classes

    def may_lack_classes(self, settings: TableSettings) -> bool:
        """As the settings say."""
        return settings.part

    def identity(self, settings: TableSettings) -> dict[str, Any]:
        """A part is decoded as the whole is."""
        values = super().identity(settings)
        del values["settings"]["part"]
        return values

    def scan(self, data_dir: Path, settings: TableSettings) -> Scan:
        """List the rows of the table."""
        file = data_dir / settings.table
        rows = read_rows(file)
        check_roles(file, rows[0], settings)
        return list_samples(rows, settings, self.classes(settings), data_dir)

    @staticmethod
    def _check_complete(settings: TableSettings) -> None:
        if not complete(settings):
            raise DataError(
                "classes, or columns by pattern, are known from the table alone: read the "
                "configuration with its data folder (load_config fills them in)"
            )


DATASETS.add(Table.name, Table())
