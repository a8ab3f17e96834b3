"""Reading and writing the files of a run folder.

Rows are appended, other files replaced atomically. Whatever interrupts a run can cut off the last
row; it alone is left out on reading. Anything else that cannot be read is an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from bmsfed_app.record.rows import ClientRow, FailedRow, PickRow, RoundRow
from strategies import Metric

T = TypeVar("T")

_AnyRow = RoundRow | ClientRow | FailedRow | PickRow

#: What a row is, by its key "kind".
_ROWS: dict[str | None, type[_AnyRow]] = {
    "round": RoundRow,
    "client": ClientRow,
    "failed": FailedRow,
    None: PickRow,
}


class RunFolderError(ValueError):
    """A run folder cannot be used; the message says which and what to do."""


# --- writing ------------------------------------------------------------------------------------


def append_rows(file: Path, rows: Iterable[BaseModel]) -> None:
    """Append rows as JSON lines."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row.model_dump(exclude_unset=True)) + "\n" for row in rows)


def drop_rows_after(file: Path, last_round: int) -> None:
    """Drop the rows of later rounds, and a cut-off one; the others stay as they are.

    A try of the next round that came to nothing did happen: its row stays.

    Raises
    ------
    RunFolderError
        If another row cannot be read; the file is then left as it is.
    """
    if file.exists():
        kept = [line for _, line, row in _rows(file)[0] if _complete(row) <= last_round]
        replace(file, b"".join(line + b"\n" for line in kept))


def write_json(file: Path, value: Any) -> None:
    """Write models, or containers of them, as one JSON file, atomically."""
    values = TypeAdapter(Any).dump_python(value)
    replace(file, (json.dumps(values, indent=1) + "\n").encode())


def _complete(row: _AnyRow) -> int:
    """The last round that was complete when a row had been written."""
    return row.round - 1 if isinstance(row, FailedRow) else row.round


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary file to write, force it to the disk, then put it in the old one's place."""
    temporary = file.with_name(file.name + ".tmp")
    yield temporary
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    temporary.replace(file)


def replace(file: Path, data: bytes) -> None:
    """Write a file anew, atomically and durably."""
    with replacing(file) as temporary:
        temporary.write_bytes(data)


# --- reading ------------------------------------------------------------------------------------


def read_rows(file: Path, metrics: Iterable[Metric] = ()) -> tuple[list[_AnyRow], bool]:
    """Read JSON lines.

    Parameters
    ----------
    file : Path
        ``history.jsonl`` or ``selection.jsonl``.
    metrics : iterable of Metric, optional
        Against which the rounds' metrics are checked.

    Returns
    -------
    rows : list
    cut_off : bool
        Whether the last line was cut off in writing, and is left out.

    Raises
    ------
    RunFolderError
        If there is no such file, or a row cannot be read: names the file and the line.
    """
    found, cut_off = _rows(file)
    for number, _, row in found:
        if isinstance(row, RoundRow) and (fault := _fault(row, metrics)):
            raise RunFolderError(f"'{file}', line {number}: {fault}; restore the file from its run")
    return [row for _, _, row in found], cut_off


def read_json(file: Path, kind: type[T]) -> T:
    """Read a JSON file as a model, or a mapping of models.

    Raises
    ------
    RunFolderError
        If there is no such file, or it cannot be read so.
    """
    try:
        return TypeAdapter(kind).validate_json(read_bytes(file))
    except ValidationError as error:
        raise _explained(f"'{file}'", error) from None


def read_bytes(file: Path) -> bytes:
    """Read a file of a run folder."""
    if not file.is_file():
        raise RunFolderError(
            f"'{file.parent}' is not a run folder: it has no {file.name}; give the folder that a "
            "run wrote to"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunFolderError(f"cannot read '{file}' ({error.strerror}): check its rights") from None


def _rows(
    file: Path,
) -> tuple[list[tuple[int, bytes, _AnyRow]], bool]:
    """Return the number, the text and the content of every line."""
    found: list[tuple[int, bytes, _AnyRow]] = []
    *lines, rest = read_bytes(file).split(b"\n")
    for number, line in enumerate([*lines, rest], 1):
        if not line.strip():
            continue
        where = f"'{file}', line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:  # not JSON, or not even text
            if number > len(lines):  # nothing ended it
                return found, True
            raise RunFolderError(
                f"{where} is not valid JSON ({error}): repair or delete the line"
            ) from None
        if not isinstance(values, dict):
            raise RunFolderError(f"{where} is not a JSON object: repair or delete the line")
        kind = values.get("kind")
        if kind not in tuple(_ROWS):
            raise RunFolderError(f"{where}: kind: {kind!r} is no kind of row; repair the line")
        try:
            found.append((number, line, _ROWS[kind].model_validate(values)))
        except ValidationError as error:
            raise _explained(where, error) from None
    return found, False


def _fault(row: RoundRow, metrics: Iterable[Metric]) -> str | None:
    """Say which metric is not what was declared, if one is."""
    for metric in metrics:
        value = row.metrics.get(metric.name)
        if metric.by_modality and not isinstance(value, dict | None):
            return f"{metric.name}: {value!r} is no object by modality"
        for one in (value or {}).values() if metric.by_modality else [value]:
            if one is None:
                continue
            if isinstance(one, bool) or not isinstance(one, int | float):
                return f"{metric.name}: {one!r} is not a number"
            if metric.unit == "%" and math.isfinite(one) and not 0 <= one <= 1:
                return f"{metric.name}: {one} is not a share from 0 to 1"
    return None


def _explained(where: str, error: ValidationError) -> RunFolderError:
    """One line for the first fault that pydantic found."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] in {"json_invalid", "missing"} else f", not {first['input']!r}"
    fault = f"{key}: {first['msg']}{given}" if key else f"{first['msg']}{given}"
    return RunFolderError(f"{where}: {fault}; restore the file from its run")
