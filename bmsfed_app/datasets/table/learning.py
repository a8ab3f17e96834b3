"""What a table's settings leave to the table: columns by pattern, sizes, classes, statistics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Array, Series
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.moments import Moments
from bmsfed_app.datasets.prepared import Scan
from bmsfed_app.datasets.table.listing import check_roles, list_samples, split_rows
from bmsfed_app.datasets.table.measured import Measured, NumbersColumn, is_pattern
from bmsfed_app.datasets.table.rows import Row, check_columns, read_rows
from bmsfed_app.datasets.table.settings import AnyColumn, TableSettings
from bmsfed_app.registry import nearest


def complete(settings: TableSettings) -> bool:
    """Say whether the settings hold all that is known without the table."""
    return bool(settings.classes) and not any(
        (isinstance(c, NumbersColumn) and not c.width())
        or (_standardises(c) and not c.model_fields_set >= {"offset", "scale"})
        for c in settings.modalities.values()
    )


def learn(settings: TableSettings, folder: Path) -> TableSettings:
    """Fill in what the settings leave to the table.

    Parameters
    ----------
    settings : TableSettings
    folder : Path
        The data folder.

    Returns
    -------
    TableSettings
        With the columns by name, sizes, classes, offsets and scales.

    Raises
    ------
    DataError
        If the table cannot be read, or does not have what the settings ask of it.
    """
    standardised = [m for m, c in settings.modalities.items() if _standardises(c)]
    if complete(settings) and not standardised:
        return settings
    file = folder / settings.table
    rows = read_rows(file)
    check_roles(file, rows[0], settings)
    columns = {m: _sized(c, m, file, rows, settings) for m, c in settings.modalities.items()}
    classes = settings.classes or _classes(file, rows, settings)
    learnt = settings.model_copy(update={"modalities": columns, "classes": classes})
    if standardised:
        samples = list_samples(rows, learnt, classes, folder).samples
        tested = {s.key for s in samples if s.key and s.split == "test"}
        trained = [s.values for s in samples if s.split == "train" and s.key not in tested]
        for m in standardised:
            own = [values[m] for values in trained if values[m] is not None]
            columns[m] = _standardised(columns[m], m, own)
        learnt = learnt.model_copy(update={"modalities": columns})
    return learnt


def _standardises(column: AnyColumn) -> bool:
    return isinstance(column, Measured) and column.standardise == "train"


# --- columns and sizes ----------------------------------------------------------------------------


def _sized(
    column: AnyColumn, modality: str, file: Path, rows: Sequence[Row], settings: TableSettings
) -> AnyColumn:
    """Return a column with its names, or the size of its lists, as the table has them."""
    if not isinstance(column, NumbersColumn):
        return column
    if not column.columns:
        check_columns(file, rows[0], column.reads(modality))
        if column.size:
            return column
        sizes = Counter(len(cells) for row in rows if (cells := column.raw(row, modality)))
        if not sizes:
            raise DataError(f"{file}: column '{column.reads(modality)[0]}' is empty in every row")
        return column.model_copy(update={"size": sizes.most_common(1)[0][0]})
    known = list(rows[0].cells)
    names = [n for entry in column.columns for n in _named(entry, known, modality, file)]
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        raise DataError(f"modalities.{modality}: columns name '{twice[0]}' twice")
    roles = settings.roles()
    if taken := [n for n in names if n in roles]:
        raise DataError(
            f"modalities.{modality}: columns take in '{taken[0]}', the column of "
            f"`{roles[taken[0]]}`, which is no input: name the columns more narrowly"
        )
    return column.model_copy(update={"columns": tuple(names)})


def _named(entry: str, known: Sequence[str], modality: str, file: Path) -> list[str]:
    """Return the columns that a name, a pattern or a range stands for, in the table's order."""
    if not is_pattern(entry):
        check_columns(file, Row(0, "", dict.fromkeys(known)), [entry])
        return [entry]
    first, dots, last = entry.partition("..")
    if dots:
        found = _between(first.strip(), last.strip(), known, modality, file)
    else:
        wanted = re.compile(".*".join(map(re.escape, entry.split("*"))))
        found = [name for name in known if wanted.fullmatch(name)]
    if not found:
        raise DataError(
            f"modalities.{modality}: no column of {file} is like '{entry}'"
            f"{nearest(entry, [name[: len(entry) - 1] + '*' for name in known])}"
        )
    if odd := [name for name in found if is_pattern(name)]:
        raise DataError(f"{file}: column '{odd[0]}' has * or .. in its name: rename it")
    return found


def _between(first: str, last: str, known: Sequence[str], modality: str, file: Path) -> list[str]:
    """Return the columns of a range: by number where both ends have one, else by their places."""
    ends = [re.fullmatch(r"(.*?)(\d+)", name) for name in (first, last)]
    if ends[0] and ends[1] and ends[0][1] == ends[1][1]:
        low, high = int(ends[0][2]), int(ends[1][2])
        parts = {name: re.fullmatch(r"(.*?)(\d+)", name) for name in known}
        numbers = {n: int(p[2]) for n, p in parts.items() if p and p[1] == ends[0][1]}
        found = [n for n, number in numbers.items() if low <= number <= high]
        if absent := sorted(set(range(low, high + 1)) - set(numbers.values())):
            raise DataError(
                f"modalities.{modality}: {file} has no column '{ends[0][1]}{absent[0]}' of the "
                f"range '{first}..{last}'"
            )
    else:
        check_columns(file, Row(0, "", dict.fromkeys(known)), [first, last])
        found = list(known[known.index(first) : known.index(last) + 1])
    return found


# --- classes --------------------------------------------------------------------------------------


def _classes(file: Path, rows: Sequence[Row], settings: TableSettings) -> tuple[str, ...]:
    """Return the labels of the rows that are used, sorted; numbers as numbers.

    Raises
    ------
    DataError
        If they are no classes: numbers to be predicted, or several labels in a cell.
    """
    splits = split_rows(rows, settings, Scan())
    used = [row for row, split in zip(rows, splits, strict=True) if split]
    labels = sorted({row.text(settings.label) for row in used} - {""})
    what = f"{file}: column '{settings.label}'"
    listed = [r for r in used if isinstance(r.cells[settings.label], list)]
    parts = Counter(part.strip() for label in labels for part in set(re.split("[;|]", label)))
    joined = [
        label
        for label in labels
        if len(own := re.split("[;|]", label)) > 1 and any(parts[p.strip()] > 1 for p in own)
    ]
    if listed or joined:
        shown = listed[0].text(settings.label) if listed else joined[0]
        raise DataError(
            f"{what} holds several labels in a cell ({shown}): a sample has one class here; give "
            "each combination a name of its own, or a row one of its labels"
        )
    numbers = [_number(label) for label in labels]
    if all(n is not None for n in numbers):
        if any(n != int(n) for n in numbers if n is not None):
            raise DataError(
                f"{what} holds numbers such as {labels[0]}: predicting numbers (regression) is "
                "not supported; name ranges of them as classes"
            )
        labels = sorted(labels, key=float)
    if len(labels) < 2 or (len(labels) > 2 and len(labels) > 0.8 * len(used)):
        raise DataError(
            f"{what} has {len(labels)} different values in {len(used)} rows, which are no classes: "
            "name the right column by `label`, or list `classes`"
        )
    return tuple(labels)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


# --- statistics -----------------------------------------------------------------------------------


def _standardised(column: AnyColumn, modality: str, values: Iterable[Any]) -> AnyColumn:
    """Return a column with the mean and deviation of the training samples as offset and scale."""
    assert isinstance(column, Measured)
    kind, moments = column.kind(), Moments()
    assert isinstance(kind, Array | Series)
    for piece in _pieces(kind, values):
        moments.add(piece)
    if not moments.count:
        raise DataError(
            f"modalities.{modality}: no training sample can be read, so that `standardise: train` "
            "has nothing to go by"
        )
    mean, deviation = moments.mean, np.where(moments.constant, 1.0, moments.deviation)
    if (fine := deviation < 1e-5 * np.abs(mean)).any():
        at = int(np.flatnonzero(fine & ~moments.constant)[0])
        raise DataError(
            f"modalities.{modality}: {kind.feature(at)} varies by {deviation[at]:.3g} around "
            f"{mean[at]:.10g}, which 32 bits do not tell apart: subtract a constant in the data"
        )
    # Nine digits are more than 32 bits hold, and the same on every machine.
    rounded = {
        key: tuple(float(f"{v:.9g}") for v in of)
        for key, of in (("offset", mean), ("scale", deviation))
    }
    scaling: dict[str, Any] = {k: v[0] if len(v) == 1 else v for k, v in rounded.items()}
    for key in ("offset", "scale"):
        if key in column.model_fields_set and getattr(column, key) != scaling[key]:
            raise DataError(
                f"modalities.{modality}: `standardise: train` finds another {key} in this table "
                f"than the one given: leave {key} out"
            )
    return column.model_copy(update=scaling)


def _pieces(
    kind: Array | Series, values: Iterable[Any], rows: int = 4096
) -> Iterator[NDArray[np.float64]]:
    """Decode values and yield their features, some thousand rows at a time."""
    waiting: list[NDArray[np.float64]] = []
    for value in values:
        try:
            waiting.append(kind.measured(kind.decode(value)))
        except BadSample:  # left out and named when the data is prepared
            continue
        if len(waiting) * len(waiting[-1]) >= rows:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
