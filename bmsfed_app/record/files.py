"""Reading and writing the files of a run folder.

Rows are appended, other files replaced atomically. Whatever interrupts a run can cut off the last
row; it alone is left out on reading. Anything else that cannot be read is an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from bmsfed_app.record.rows import ClientRow, FailedRow, PickRow, RoundRow, RunSummary
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


def cannot_write(file: Path, error: OSError) -> RunFolderError:
    """Say that a file cannot be written, and what to do."""
    return RunFolderError(
        f"cannot write '{file}' ({error.strerror or error}): make room there, or check its rights; "
        "what was complete before is kept, and the run can be resumed"
    )


def append_rows(file: Path, rows: Iterable[BaseModel]) -> None:
    """Append rows as JSON lines, all of them or none.

    Raises
    ------
    RunFolderError
        If they cannot be written.
    """
    text = "".join(json.dumps(row.model_dump(exclude_unset=True)) + "\n" for row in rows)
    try:
        with file.open("ab", buffering=0) as stream:
            before, rest = stream.tell(), memoryview(text.encode())
            try:
                while rest:
                    rest = rest[stream.write(rest) :]
            except OSError:
                stream.truncate(before)
                raise
    except OSError as error:
        raise cannot_write(file, error) from None


def cut_rows(file: Path, last_round: int, aside: Callable[[], Path]) -> list[int]:
    """Take the rows of later rounds, and lines that cannot be read, out of a file.

    A try of the next round that came to nothing did happen: its row stays.

    Parameters
    ----------
    file : Path
    last_round : int
        The last round that stays, and with it the tries of the next one that came to nothing.
    aside : callable
        Returns the folder where what is taken out is kept, in a file of the same name; of a file
        with lines that cannot be read all of it is kept, in one named "damaged". Called if
        anything is taken out.

    Returns
    -------
    list of int
        Numbers of the lines that cannot be read; not of a last one that was cut off in writing.

    Raises
    ------
    RunFolderError
        If a file cannot be written; nothing is lost then.
    """
    if not file.exists():
        return []
    kept: list[bytes] = []
    cut: list[bytes] = []
    bad: list[int] = []
    for number, line, row, whole in _lines(file):
        stays = not isinstance(row, RunFolderError) and _complete(row) <= last_round
        (kept if stays else cut).append(line + b"\n" if whole or stays else line)
        if whole and isinstance(row, RunFolderError):
            bad.append(number)
    if cut:
        name = f"{file.stem}.damaged{file.suffix}" if bad else file.name
        replace(aside() / name, read_bytes(file) if bad else b"".join(cut))
    if b"".join(kept) != read_bytes(file):
        replace(file, b"".join(kept))
    return bad


def write_json(file: Path, value: Any) -> None:
    """Write models, or containers of them, as one JSON file, atomically."""
    values = TypeAdapter(Any).dump_python(value)
    replace(file, (json.dumps(values, indent=1) + "\n").encode())


def _complete(row: _AnyRow) -> int:
    """The last round that was complete when a row had been written."""
    return row.round - 1 if isinstance(row, FailedRow) else row.round


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary file to write, force it to the disk, then put it in the old one's place.

    Raises
    ------
    RunFolderError
        If it cannot be written; the old one is then as before.
    """
    temporary = file.with_name(file.name + ".tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(file, error) from None


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
    found: list[_AnyRow] = []
    for number, _, row, whole in _lines(file):
        if isinstance(row, RunFolderError):
            if not whole:
                return found, True
            raise row
        if isinstance(row, RoundRow) and (fault := _fault(row, metrics)):
            raise RunFolderError(f"'{file}', line {number}: {fault}; restore the file from its run")
        found.append(row)
    return found, False


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


def is_complete(folder: Path) -> bool:
    """Whether a run folder holds a run that ended by itself."""
    file = folder / "summary.json"
    return file.exists() and read_json(file, RunSummary).complete


def read_config(file: Path) -> dict[str, Any]:
    """Read a run's ``config.yaml`` as plain values.

    Raises
    ------
    RunFolderError
        If there is no such file, or it is not YAML with a whole number of rounds.
    """
    try:
        values = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise RunFolderError(
            f"'{file}' is not valid YAML ({text}): restore it from its run"
        ) from None
    rounds = values.get("rounds") if isinstance(values, dict) else None
    if isinstance(rounds, bool) or not isinstance(rounds, int):
        raise RunFolderError(f"'{file}' has no whole number of 'rounds': restore it from its run")
    return dict(values)


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


def _lines(file: Path) -> Iterator[tuple[int, bytes, _AnyRow | RunFolderError, bool]]:
    """Yield every line's number, text and content, or what is wrong, and whether it was ended."""
    *lines, rest = read_bytes(file).split(b"\n")
    for number, line in enumerate([*lines, rest], 1):
        if line.strip():
            yield number, line, _row(f"'{file}', line {number}", line), number <= len(lines)


def _row(where: str, line: bytes) -> _AnyRow | RunFolderError:
    """Read a row, or say what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        return RunFolderError(f"{where} is not valid JSON ({error}): repair or delete the line")
    if not isinstance(values, dict):
        return RunFolderError(f"{where} is not a JSON object: repair or delete the line")
    kind = values.get("kind")
    if kind not in tuple(_ROWS):
        return RunFolderError(f"{where}: kind: {kind!r} is no kind of row; repair the line")
    try:
        return _ROWS[kind].model_validate(values)
    except ValidationError as error:
        return _explained(where, error)


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
