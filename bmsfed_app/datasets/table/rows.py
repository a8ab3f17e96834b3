"""Reading a table's file: CSV, Parquet or lines of JSON, a row per sample."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bmsfed_app.datasets.base import DataError
from bmsfed_app.registry import nearest


class Row(NamedTuple):
    """One row.

    Attributes
    ----------
    line : int
        Where it begins in the file; its number, from 1, in a Parquet file.
    where : str
        The same in words, such as "samples.csv line 7".
    cells : dict
        By column: text in a CSV file, otherwise what the file holds (numbers, lists, None).
    """

    line: int
    where: str
    cells: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a cell as text without blanks around it; empty where there is none."""
        return as_text(self.cells.get(column)).strip()


def as_text(cell: Any) -> str:
    """Return a cell as text; a whole number is written as one, whatever its type."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def read_rows(file: Path) -> list[Row]:
    """Read a table.

    Parameters
    ----------
    file : Path
        Lines of JSON if it ends in ``.jsonl``, Parquet if in ``.parquet``, else CSV in UTF-8.

    Returns
    -------
    list of Row
        At least one; all with the same columns.

    Raises
    ------
    DataError
        If the file is missing, empty or cannot be read, or two columns have the same name.
    """
    read = {".parquet": _parquet, ".jsonl": _json_lines}.get(file.suffix, _csv)
    word = "row" if file.suffix == ".parquet" else "line"
    try:
        rows = [Row(at, f"{file.name} {word} {at}", cells) for at, cells in read(file)]
    except FileNotFoundError:
        raise DataError(f"no file {file}: name it by `table` in dataset_settings") from None
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"cannot read {file} ({error}): it must be CSV in UTF-8, Parquet (.parquet) or lines "
            "of JSON (.jsonl)"
        ) from None
    if not rows:
        raise DataError(f"{file} has no rows")
    return rows


def check_columns(file: Path, row: Row, wanted: Sequence[str]) -> None:
    """Check that a table has some columns.

    Raises
    ------
    DataError
        Naming the first that is absent, and the nearest that is there.
    """
    if absent := [c for c in wanted if c not in row.cells]:
        names = list(row.cells)
        hint = nearest(absent[0], names)
        if len(names) == 1 and any(sign in names[0] for sign in ";\t"):
            hint = "; are its values separated by commas?"
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise DataError(
            f"{file} has no column '{absent[0]}'{hint} (it has {shown}): mend the table or "
            "dataset_settings"
        )


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        head = [name.strip() for name in next(reader, [])]
        if twice := [name for name, count in Counter(head).items() if count > 1]:
            raise ValueError(f"it has two columns '{twice[0]}'")
        for cells in reader:
            if not cells:
                continue
            # A cell may run over several lines; the reader knows the last of them.
            line = reader.line_num - sum(cell.count("\n") for cell in cells)
            if len(cells) > len(head):
                raise ValueError(f"line {line} has more values than the head has columns")
            yield line, dict(zip(head, cells + [""] * (len(head) - len(cells)), strict=True))


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError("Parquet is read by pyarrow: pip install 'bmsfed[table]'") from None
    yield from enumerate(parquet.read_table(file).to_pylist(), start=1)


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(cells, dict):
            raise ValueError(f'line {number} is no object such as {{"label": "calm"}}')
        found.append((number, cells))
    columns = dict.fromkeys(name for _, cells in found for name in cells)
    yield from ((number, {c: cells.get(c) for c in columns}) for number, cells in found)
