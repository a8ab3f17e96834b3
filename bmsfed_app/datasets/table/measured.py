"""The types of columns that hold numbers, or name files of them."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bmsfed_app.datasets.kinds import Array, Kind, Series
from bmsfed_app.datasets.table.columns import Column, Fault, lacking
from bmsfed_app.datasets.table.rows import Row, as_text

Scale = float | tuple[float, ...]


def _finite(value: Scale) -> Scale:
    if not np.isfinite(value).all():
        raise ValueError("finite numbers only")
    return value


def _divisor(value: Scale) -> Scale:
    if not (np.isfinite(value) & (np.array(value) != 0)).all():
        raise ValueError("numbers other than 0 only, as values are divided by them")
    return value


def is_pattern(name: str) -> bool:
    """Whether a name of columns stands for those that are like it, or lie between two."""
    return "*" in name or ".." in name


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Measured(Column):
    """Numbers, which enter the model as (value - offset) / scale.

    Attributes
    ----------
    offset, scale : float or tuple of float
        One for all, or one for each feature.
    standardise : {"none", "train"}
        "train": offset and scale are each feature's mean and deviation over the training samples.
    """

    offset: Annotated[Scale, AfterValidator(_finite)] = 0.0
    scale: Annotated[Scale, AfterValidator(_divisor)] = 1.0
    standardise: Literal["none", "train"] = "none"

    @model_validator(mode="after")
    def _lengths(self) -> Measured:
        for key in ("offset", "scale"):
            given, wanted = getattr(self, key), self.width()
            if isinstance(given, tuple) and wanted and len(given) != wanted:
                raise ValueError(
                    f"{key} has {len(given)} values for {wanted} features: give one for each, or "
                    "a single one for all"
                )
        return self

    @abstractmethod
    def width(self) -> int:
        """Return the number of features; 0 while the table has to say."""

    def scaling(self) -> dict[str, Any]:
        """Return offset and scale, by name."""
        return {"offset": self.offset, "scale": self.scale}


class SeriesColumn(Measured):
    """The path of a .npy, .csv or .txt file of (any steps, features)."""

    type: Literal["series"]
    steps: int = Field(ge=1)
    features: int = Field(ge=1)
    fit: Literal["stretch", "cut", "pool"] = "stretch"

    def kind(self) -> Kind:
        """A series."""
        return Series(self.steps, self.features, fit=self.fit, **self.scaling())

    def width(self) -> int:
        """Return the features of a step."""
        return self.features


class ArrayColumn(Measured):
    """The path of a .npy, .csv or .txt file of an array of a fixed shape."""

    type: Literal["array"]
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)

    def kind(self) -> Kind:
        """An array."""
        return Array(self.shape, **self.scaling())

    def width(self) -> int:
        """Return the length of the last axis."""
        return self.shape[-1]


class NumbersColumn(Measured):
    """Numbers in the table itself: columns of them, or one column of lists.

    Attributes
    ----------
    columns : tuple of str
        Names, patterns (``mfcc_*``) and ranges (``mfcc_1..mfcc_35``).
    size : int
        Without ``columns``: numbers in each cell of ``column``; 0: as the table has it.
    """

    type: Literal["numbers"]
    columns: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    size: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> NumbersColumn:
        if self.columns and (self.column or self.size):
            key = "column" if self.column else "size"
            raise ValueError(f"give either 'columns', of a number each, or '{key}', of lists")
        return self

    def kind(self) -> Kind:
        """A vector."""
        return Array((self.width(),), names=self.columns, **self.scaling())

    def width(self) -> int:
        """Return how many numbers a row has; 0 while the table has to say."""
        return 0 if any(map(is_pattern, self.columns)) else len(self.columns) or self.size

    def reads(self, modality: str) -> tuple[str, ...]:
        """Return the columns."""
        return self.columns or super().reads(modality)

    def values(self, rows: Sequence[Row], modality: str, folder: Path) -> list[Any]:
        """Return each row's numbers (width,), float32, or a :class:`Fault`."""
        names = self.reads(modality)
        raw = [self.raw(row, modality) for row in rows]
        fits = [i for i, cells in enumerate(raw) if len(cells) == self.width()]
        matrix = np.full((len(rows), self.width()), np.nan, dtype=np.float32)
        if fits:
            matrix[fits] = _as_numbers([raw[i] for i in fits])
        good = set(np.flatnonzero(np.isfinite(matrix).all(axis=1)).tolist())
        return [
            matrix[i] if i in good else self._fault(row, raw[i], names, modality)
            for i, row in enumerate(rows)
        ]

    def raw(self, row: Row, modality: str) -> list[Any]:
        """Return a row's cells, or the items of its list; empty where there is nothing."""
        if self.columns:
            return [row.cells[name] for name in self.columns]
        cell = row.cells[self.column or modality]
        if isinstance(cell, str) and cell.strip().startswith("["):
            try:
                cell = json.loads(cell)
            except ValueError:
                return [cell]
        if isinstance(cell, list):
            return cell
        return [cell] if as_text(cell).strip() else []

    def _fault(self, row: Row, cells: list[Any], names: Sequence[str], modality: str) -> Fault:
        if not any(as_text(cell).strip() for cell in cells):
            return lacking(row, names, modality)
        if not self.columns and len(cells) != self.size:
            return Fault(
                f"{row.where}: column '{names[0]}' holds {len(cells)} numbers, not {self.size}",
                f"another size of {modality}",
            )
        at = int(np.flatnonzero(~np.isfinite(_as_numbers([cells])[0]))[0])
        where = f"column '{names[at]}'" if self.columns else f"column '{names[0]}', place {at + 1},"
        text = as_text(cells[at]).strip()
        shown = f"is '{text}', not a finite number" if text else "is empty"
        return Fault(f"{row.where}: {where} {shown}", f"no number in {modality}")


def _as_numbers(rows: list[list[Any]]) -> NDArray[np.float32]:
    """Turn cells into numbers; NaN where there is none or it is beyond float32."""
    with np.errstate(over="ignore"):
        try:
            return np.array(rows, dtype=np.float64).astype(np.float32)
        except (TypeError, ValueError):
            if len(rows) > 1:  # some row is at fault: the others are still read at once
                return np.concatenate([_as_numbers([row]) for row in rows])
        return np.array([[_as_number(cell) for cell in rows[0]]], dtype=np.float32)


def _as_number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan
