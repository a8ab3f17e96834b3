"""Which samples a table lists: their splits, labels, clients and cells, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.prepared import SPLITS, Sample, Scan
from bmsfed_app.datasets.table.columns import Fault
from bmsfed_app.datasets.table.rows import Row, check_columns
from bmsfed_app.datasets.table.settings import TableSettings
from bmsfed_app.registry import nearest
from strategies.randomness import generator


def list_samples(
    rows: Sequence[Row], settings: TableSettings, classes: Sequence[str], folder: Path
) -> Scan:
    """List the samples of a table.

    Parameters
    ----------
    rows : sequence of Row
    settings : TableSettings
    classes : sequence of str
        The labels in the order of their numbers.
    folder : Path
        Where the table's paths start.

    Raises
    ------
    DataError
        If a column is absent, or the split column has a value that nobody explained.
    """
    scan, file = Scan(), folder / settings.table
    for modality, column in settings.modalities.items():
        check_columns(file, rows[0], column.reads(modality))
    splits = split_rows(rows, settings, scan)
    values = {m: c.values(rows, m, folder) for m, c in settings.modalities.items()}
    for i, (row, split) in enumerate(zip(rows, splits, strict=True)):
        cells = {m: _cell(of[i], settings) for m, of in values.items()}
        fault = _fault(row, split, settings, classes, cells)
        if fault is not None:
            scan.leave_out(row.where, fault.reason, split, fault.cause, by_rule=not split)
            continue
        name = row.text(settings.id) or str(i)
        label = classes.index(row.text(settings.label))
        client = row.text(settings.client)
        key = row.text(settings.key) if settings.key else ""
        scan.samples.append(Sample(name, split, label, cells, client, key, row.where))
    _note_blanks(rows, settings, scan)
    return scan


def check_roles(file: Path, row: Row, settings: TableSettings) -> None:
    """Check that the table has the columns that its settings name.

    Raises
    ------
    DataError
        If one is absent; split, client and id may be, where the settings do not name them.
    """
    named = settings.model_fields_set | {"label"} | ({"split"} if settings.splits else set())
    check_columns(file, row, [c for c, role in settings.roles().items() if role in named])


def split_rows(rows: Sequence[Row], settings: TableSettings, scan: Scan) -> list[str]:
    """Return the split of each row: "train", "test" or "" for one that is left out.

    Raises
    ------
    DataError
        If the split column has a value that is neither a split nor explained by ``splits``.
    """
    if settings.split not in rows[0].cells:
        share = f"{settings.test_share:.0%} of " + (
            f"the samples, whole values of '{settings.key}'," if settings.key else "every class,"
        )
        near = nearest(settings.split, rows[0].cells)
        scan.notes.append(
            f"no column '{settings.split}'{near}{'' if near else ':'} {share} drawn once for all, "
            "is the test split"
        )
        if not settings.key and settings.client in rows[0].cells:
            scan.notes.append(
                f"both splits have samples of the same '{settings.client}': to test on others, "
                f"`key: {settings.client}`"
            )
        return _draw(rows, settings)
    found = [row.text(settings.split) for row in rows]
    known = {s: s for s in SPLITS} | dict(settings.splits)
    if unknown := [(r, s) for r, s in zip(rows, found, strict=True) if s not in known]:
        row, value = unknown[0]
        raise DataError(
            f"{row.where}: column '{settings.split}' is '{value}', not "
            f"{', '.join(known)}{nearest(value, known)} ({len(unknown)} such rows): mend the "
            f"table, or say what it stands for, `splits: {{{value or repr('')}: train}}`, or "
            f'`splits: {{{value or repr("")}: ""}}` to leave such rows out'
        )
    return [known[s] for s in found]


def _draw(rows: Sequence[Row], settings: TableSettings) -> list[str]:
    """Draw the test split: a share of every class, or keys with that share of the samples."""
    splits = np.full(len(rows), "train", dtype=object)
    rng = generator(0, "table")
    if settings.key:
        # A row without a key shares it with nobody.
        named = [row.text(settings.key) or f"\0{row.line}" for row in rows]
        keys, owner, sizes = np.unique(named, return_inverse=True, return_counts=True)
        if len(keys) < 2:
            raise DataError(
                f"all rows have the same '{settings.key}', '{keys[0]}': without a column "
                f"'{settings.split}' there is no test split to draw"
            )
        order = rng.permutation(len(keys))
        # As many whole keys as come nearest to the share, of two or more always one.
        ends = np.cumsum(sizes[order])
        count = int(np.argmin(np.abs(ends[:-1] - settings.test_share * len(rows)))) + 1
        splits[np.isin(owner, order[:count])] = "test"
        return [str(s) for s in splits]
    labels = np.array([row.text(settings.label) for row in rows])
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        count = max(round(settings.test_share * len(own)), int(len(own) > 1))
        splits[own[:count]] = "test"
    return [str(s) for s in splits]


def _fault(
    row: Row, split: str, settings: TableSettings, classes: Sequence[str], cells: dict[str, object]
) -> Fault | None:
    """Say why a row is not used; None if it is."""
    if not split:
        value = row.text(settings.split)
        return Fault(f"{row.where} is of split '{value}'", f"split '{value}'")
    label = row.text(settings.label)
    if not label:
        return Fault(f"{row.where}: column '{settings.label}' is empty", "no label")
    if label not in classes:
        if all(part.strip() in classes for part in re.split("[;|]", label)):
            one = "a sample has one class here"
            return Fault(f"{row.where} has several labels, '{label}': {one}", "several labels")
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        return Fault(f"{row.where} has label '{label}', not {shown}", "unknown label")
    return next((cell for cell in cells.values() if isinstance(cell, Fault)), None)


def _cell(value: object, settings: TableSettings) -> object:
    """Return what a modality is decoded from; None of an empty cell where gaps are kept."""
    empty = isinstance(value, Fault) and value.empty
    return None if empty and settings.gaps == "keep" else value


def _note_blanks(rows: Sequence[Row], settings: TableSettings, scan: Scan) -> None:
    for column in settings.roles():
        cells = [row.cells.get(column) for row in rows]
        if count := sum(isinstance(c, str) and c != c.strip() for c in cells):
            scan.notes.append(f"blanks around {count} cells of column '{column}' are ignored")
