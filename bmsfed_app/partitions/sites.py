"""Partitions that a CSV file lists: which real site has which samples and modalities."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from bmsfed_app.partitions.base import (
    PARTITIONS,
    Division,
    Indices,
    Names,
    Partition,
    PartitionError,
    Samples,
)
from bmsfed_app.registry import nearest

_COLUMNS = ("client", "sample", "modalities")
_SAFE = re.compile(r"\w[\w.-]*")


@PARTITIONS.register("file")
class Sites(Partition):
    """As a CSV file lists the samples; see :func:`read_sites`.

    Attributes
    ----------
    partition_file : str
        Absolute path of the file.
    """

    partition_file: str = Field("", validate_default=True)

    @field_validator("partition_file")
    @classmethod
    def _named(cls, path: str) -> str:
        if not path:
            raise ValueError(
                "empty; partition: file needs a CSV file with the columns client and sample"
            )
        return path

    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples as the file says, which must list ``num_clients`` clients."""
        path = self.partition_file
        names, parts, held = self._read(samples)
        if len(names) != num_clients:
            raise PartitionError(
                f"{path} lists {len(names)} clients, the federation has {num_clients}: set clients "
                f"to {len(names)} (num-supernodes with `flwr run`), or name another file"
            )
        if held is not None and self.whole_share < 1:
            raise PartitionError(
                f"{path} says who holds which modalities: leave whole_share at 1, or the column out"
            )
        return Division([np.flatnonzero(np.isin(samples.rows, p)) for p in parts], names, held)

    def own_clients(self, samples: Samples) -> int:
        """Count the clients that the file lists."""
        return len(self._read(samples)[0])

    def _read(
        self, samples: Samples
    ) -> tuple[list[str], list[Indices], list[tuple[str, ...]] | None]:
        return read_sites(self.partition_file, samples.modalities, samples.total, samples.ids)

    def detail(self) -> str:
        """Say which file it is."""
        return self.partition_file


@dataclass(frozen=True, eq=False)
class _Listed:
    """The cells of a file's rows, with the line that each stands on."""

    path: str
    lines: list[int]
    clients: list[str]
    samples: list[str]
    modalities: list[str] | None

    def fault(self, row: int, text: str) -> PartitionError:
        """Say what is wrong with a row."""
        return PartitionError(f"{self.path}, line {self.lines[row]}: {text}")


def read_sites(
    path: str, modalities: Sequence[str], total: int, ids: Names | None
) -> tuple[list[str], list[Indices], list[tuple[str, ...]] | None]:
    """Read which client has which samples.

    Parameters
    ----------
    path : str
        A CSV file with the columns ``client``, ``sample`` and, optionally, ``modalities``: names
        with spaces or ``+`` between them, the same for all of a client's rows. Samples that it
        does not list are nobody's.
    modalities : sequence of str
        The data set's.
    total : int
        Samples of the training split.
    ids : array (total,) of str, optional
        What the file calls the samples by; without it, by their row, from 0.

    Returns
    -------
    names : list of N str
        In the order of their first rows.
    parts : list of N arrays, int64
        Rows of the training split, ascending.
    held : list of N tuples of str, or None
        Modalities, in the data set's order; None without that column.

    Raises
    ------
    PartitionError
        If the file cannot be read, or a line of it is wrong; the message names the line.
    """
    listed = _read(path)
    rows = _sample_rows(listed, total, ids)
    names, first, place = _clients(listed)
    parts = [np.sort(rows[place == number]) for number in range(len(names))]
    if listed.modalities is None:
        return names, parts, None
    return names, parts, _held(listed.modalities, listed, modalities, first, place)


def _read(path: str) -> _Listed:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [cell.strip() for cell in next(reader, [])]
            numbered = [
                (reader.line_num, [cell.strip() for cell in cells])
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PartitionError(
            f"partition_file: cannot read '{path}' ({error}): name a CSV file with the columns "
            "client and sample"
        ) from None
    if unknown := [c for c in header if c not in _COLUMNS]:
        raise PartitionError(
            f"{path}, line 1: unknown column '{unknown[0]}'{nearest(unknown[0], _COLUMNS)} "
            f"(known: {', '.join(_COLUMNS)})"
        )
    if missing := [c for c in _COLUMNS[:2] if c not in header]:
        raise PartitionError(f"{path}, line 1: the column '{missing[0]}' is missing")
    if twice := [c for c in header if header.count(c) > 1]:
        raise PartitionError(f"{path}, line 1: the column '{twice[0]}' stands there twice")
    if not numbered:
        raise PartitionError(f"{path} lists no samples")
    if short := [n for n, cells in numbered if len(cells) != len(header)]:
        raise PartitionError(f"{path}, line {short[0]}: expected {len(header)} values")
    lines = [number for number, _ in numbered]
    columns = dict(zip(header, zip(*(c for _, c in numbered), strict=True), strict=True))
    clients, samples = list(columns["client"]), list(columns["sample"])
    held = list(columns["modalities"]) if "modalities" in columns else None
    return _Listed(path, lines, clients, samples, held)


def _sample_rows(listed: _Listed, total: int, ids: Names | None) -> Indices:
    """Return the row of the training split that each line names."""
    known = ids if ids is not None else np.arange(total).astype(np.str_)
    order = np.argsort(known, kind="stable")
    cells = np.array(listed.samples, dtype=np.str_)
    place = np.minimum(np.searchsorted(known, cells, sorter=order), total - 1)
    rows: Indices = order[place]
    if (wrong := np.flatnonzero(known[rows] != cells)).size:
        what = f"a row number from 0 to {total - 1}" if ids is None else "a training sample's id"
        raise listed.fault(wrong[0], f"no sample '{cells[wrong[0]]}': expected {what}")
    by_row = np.argsort(rows, kind="stable")
    twice = np.flatnonzero(np.diff(rows[by_row]) == 0)
    if twice.size:
        again = by_row[twice + 1].min()
        earlier = listed.lines[int(np.flatnonzero(rows == rows[again])[0])]
        raise listed.fault(
            int(again), f"sample '{cells[again]}' is listed already, on line {earlier}"
        )
    return rows


def _clients(listed: _Listed) -> tuple[list[str], Indices, Indices]:
    """Return the clients' names, their first rows, and each row's client."""
    found, first, place = np.unique(listed.clients, return_index=True, return_inverse=True)
    for name, row in zip(found, first, strict=True):
        if not _SAFE.fullmatch(name):
            raise listed.fault(
                row, f"client '{name}': letters, digits, '_', '-' and '.' only, no '.' or '-' first"
            )
    order = np.argsort(first, kind="stable")
    rank = np.argsort(order, kind="stable")
    return [str(name) for name in found[order]], first[order], rank[place]


def _held(
    cells: Sequence[str],
    listed: _Listed,
    modalities: Sequence[str],
    first: Indices,
    place: Indices,
) -> list[tuple[str, ...]]:
    """Return each client's modalities; all its rows must say the same."""
    texts, seen_on, text_of = np.unique(cells, return_index=True, return_inverse=True)
    holds = np.zeros((len(texts), len(modalities)), dtype=bool)
    for number, row in enumerate(seen_on):
        named = cells[row].replace("+", " ").split()
        if unknown := [m for m in named if m not in modalities]:
            raise listed.fault(
                row,
                f"no modality '{unknown[0]}'{nearest(unknown[0], modalities)} "
                f"(the data set has {', '.join(modalities)})",
            )
        if not named:
            raise listed.fault(row, f"names no modality; name some of {', '.join(modalities)}")
        holds[number] = [m in named for m in modalities]
    own = holds[text_of[first]]
    if (differing := np.flatnonzero((holds[text_of] != own[place]).any(1))).size:
        row, client = differing[0], place[differing[0]]
        raise listed.fault(
            row,
            f"client '{listed.clients[row]}' holds '{cells[row]}' here, '{cells[first[client]]}' "
            f"on line {listed.lines[first[client]]}",
        )
    return [tuple(np.array(modalities)[there].tolist()) for there in own]
