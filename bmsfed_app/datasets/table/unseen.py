"""New samples in a table, which need no label and may lack modalities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bmsfed_app.datasets.base import DataError, DatasetInfo, Split
from bmsfed_app.datasets.kinds import Kind, Rows
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.table.columns import Fault
from bmsfed_app.datasets.table.rows import Row, check_columns, read_rows
from bmsfed_app.datasets.table.settings import TableSettings

#: Label of a sample whose label is not known.
UNKNOWN = -1


def read_unseen(
    file: Path, settings: TableSettings, info: DatasetInfo, without: Sequence[str] = ()
) -> Split:
    """Read all rows of a table as samples that nobody trained on.

    Parameters
    ----------
    file : Path
        CSV, .parquet or .jsonl with the columns of the table that was trained on; that of the label
        may lack. Paths in it are relative to its folder.
    settings : TableSettings
        Those of the run, complete.
    info : DatasetInfo
    without : sequence of str, optional
        Modalities whose columns the file need not have: all samples lack them.

    Returns
    -------
    Split
        Labels are ``UNKNOWN`` (-1) where the file has none. An empty cell is a modality that the
        sample lacks.

    Raises
    ------
    DataError
        If a column is absent, a cell cannot be used, a label is no class, or a sample has nothing.
    """
    rows = read_rows(file)
    columns = {m: c for m, c in settings.modalities.items() if m not in without}
    for modality, column in columns.items():
        check_columns(file, rows[0], column.reads(modality))
    stores: Rows = {}
    masks = {m: torch.zeros(len(rows), dtype=torch.bool) for m in info.modalities}
    for modality, column in columns.items():
        values = column.values(rows, modality, file.parent)
        found = _decoded(rows, values, modality, column.kind())
        masks[modality] = torch.tensor([one is not None for one in found])
        stores |= _stacked(found, modality)
    there = torch.stack(list(masks.values())).any(dim=0)
    if not there.all():
        row = rows[int((~there).nonzero()[0])]
        raise DataError(f"{row.where} has no modality at all: fill in a cell, or leave the row out")
    held = [m for m in info.modalities if masks[m].any()]
    renderers = {m: info.renderers[m] for m in held}
    ids = np.array([row.text(settings.id) or str(i) for i, row in enumerate(rows)])
    tensors = {name: torch.from_numpy(array) for name, array in stores.items()}
    split = Split(_labels(rows, settings, info), tensors, renderers, ids=ids)
    return split.lacking({m: masks[m] for m in held})


def _decoded(
    rows: Sequence[Row], values: Sequence[object], modality: str, kind: Kind
) -> list[Rows | None]:
    found: list[Rows | None] = []
    for row, value in zip(rows, values, strict=True):
        if isinstance(value, Fault):
            if not value.empty:
                raise DataError(f"{value.reason}: mend the cell, or leave it empty")
            found.append(None)
            continue
        try:
            parts = kind.decode(value)
        except BadSample as error:
            raise DataError(f"{row.where}: {error}; mend it, or leave the cell empty") from None
        found.append({f"{modality}.{p}": np.asarray(array) for p, array in parts.items()})
    return found


def _stacked(found: Sequence[Rows | None], modality: str) -> Rows:
    """Stack what is kept of each sample; rows of those that lack the modality are zeros."""
    first = next((rows for rows in found if rows is not None), {})
    blank = {name: np.zeros_like(array) for name, array in first.items()}
    return {
        name: np.ascontiguousarray(np.stack([(rows or blank)[name] for rows in found]))
        for name in blank
    }


def _labels(rows: Sequence[Row], settings: TableSettings, info: DatasetInfo) -> torch.Tensor:
    known = {name: number for number, name in enumerate(info.class_names)}
    labels = []
    for row in rows:
        text = row.text(settings.label) if settings.label in row.cells else ""
        if text and text not in known:
            raise DataError(
                f"{row.where}: label '{text}' is none of the run's classes "
                f"({', '.join(list(known)[:10])}): mend it, or leave it empty"
            )
        labels.append(known[text] if text else UNKNOWN)
    return torch.tensor(labels)
