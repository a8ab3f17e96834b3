"""Series of measurements, and arrays of a fixed shape.

Shape legend: b batch, T steps of a series as it comes, k features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets import media
from bmsfed_app.datasets.base import constant
from bmsfed_app.datasets.kinds.base import Kind, Rows
from bmsfed_app.datasets.media import BadSample

Fit = Literal["stretch", "cut", "pool"]
Scale = float | tuple[float, ...]


@dataclass(frozen=True)
class Series(Kind):
    """A series of measurements, (steps, features), (values - offset) / scale in the model.

    Values: an array (T, features), or a ``.npy``, ``.csv`` or ``.txt`` file of one.

    Attributes
    ----------
    steps, features : int
    encoder : str
    fit : {"stretch", "cut", "pool"}
        How T steps become ``steps``: by interpolation; the first ones, with zeros (in the model)
        after those that are there; or means of as many equal stretches.
    offset, scale : float or tuple of float
        One for all features, or one for each.
    """

    steps: int
    features: int
    encoder: str = "gru"
    fit: Fit = "stretch"
    offset: Scale = 0.0
    scale: Scale = 1.0
    parts: tuple[str, ...] = ("values", "length")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, self.features)

    def decode(self, value: Any) -> Rows:
        array, name = _read(value, "a series")
        if array.ndim != 2 or array.shape[1] != self.features or not len(array):
            raise BadSample(f"{name} is {array.shape}, expected (steps, {self.features})")
        values = torch.from_numpy(_finite(array, "float32", name)).T[None]
        if self.fit == "cut":
            fitted = F.pad(values[..., : self.steps], (0, max(self.steps - len(array), 0)))
        elif self.fit == "pool":
            fitted = F.adaptive_avg_pool1d(values, self.steps)
        else:
            fitted = F.interpolate(values, size=self.steps, mode="linear", align_corners=True)
        length = np.array(len(array), dtype=np.int32)
        return {"values": fitted[0].T.contiguous().numpy(), "length": length}

    def render(self, *rows: Tensor) -> Tensor:
        values = _scaled(rows[0], self.offset, self.scale)
        if self.fit != "cut":
            return values
        steps = torch.arange(self.steps, device=values.device)
        return values * (steps < rows[1][:, None])[..., None]

    def measured(self, rows: Rows) -> NDArray[np.float64]:
        """Return a decoded sample's steps as rows of its features, without padding."""
        end = int(rows["length"]) if self.fit == "cut" else self.steps
        return rows["values"][:end].astype(np.float64)

    def kept(self) -> str:
        """Offset and scale come after."""
        return repr(replace(self, offset=0.0, scale=1.0))

    def feature(self, at: int) -> str:
        """Return what a feature is called, by its place."""
        return f"feature {at + 1}"


@dataclass(frozen=True)
class Array(Kind):
    """An array of a fixed shape, (values - offset) / scale as it enters the model.

    Kept in ``dtype``. Values: an array, or a ``.npy``, ``.csv`` or ``.txt`` file of one.

    Attributes
    ----------
    size : tuple of int
    dtype : str
    offset, scale : float or tuple of float
        One for all values, or one for each along the last axis.
    encoder : str
    names : tuple of str
        What the values along the last axis are called; empty where they have no names.
    """

    size: tuple[int, ...]
    dtype: str = "float32"
    offset: Scale = 0.0
    scale: Scale = 1.0
    encoder: str = "mlp"
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def decode(self, value: Any) -> Rows:
        array, name = _read(value, "an array")
        if array.size != np.prod(self.size):
            raise BadSample(f"{name} is {array.shape}, expected {self.size}")
        return {"values": _finite(array, self.dtype, name).reshape(self.size)}

    def render(self, *rows: Tensor) -> Tensor:
        return _scaled(rows[0], self.offset, self.scale)

    def measured(self, rows: Rows) -> NDArray[np.float64]:
        """Return a decoded sample as a row of features; of several axes, all values are one."""
        values = rows["values"].astype(np.float64)
        return values[None] if values.ndim == 1 else values.reshape(-1, 1)

    def kept(self) -> str:
        """Offset and scale come after."""
        return repr(replace(self, offset=0.0, scale=1.0))

    def feature(self, at: int) -> str:
        """Return what a feature is called, by its place in :meth:`measured`."""
        if self.names:
            return f"column '{self.names[at]}'"
        return f"value {at + 1}" if len(self.size) == 1 else "the array"


def _scaled(values: Tensor, offset: Scale, scale: Scale) -> Tensor:
    by, over = (constant(v, values.device) for v in (offset, scale))
    return (values.float() - by) / over


def _read(value: Any, what: str) -> tuple[NDArray[Any], str]:
    """Return an array, given or read from its file, and what to call it."""
    if isinstance(value, str | Path):
        return media.read_array(Path(value)), str(value)
    return np.asarray(value), what


def _finite(array: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Return an array in another type, all of it finite."""
    try:
        with np.errstate(over="ignore"):  # what is too large for the type becomes infinite
            kept = np.ascontiguousarray(array, dtype=dtype)
    except (TypeError, ValueError):
        raise BadSample(f"{name} holds {array.dtype}, not numbers") from None
    if not np.isfinite(kept).all():
        at = np.argwhere(~np.isfinite(kept))[0]
        place = f"row {at[0] + 1}, column {at[1] + 1}" if kept.ndim == 2 else f"place {at.tolist()}"
        raise BadSample(f"{name} is {array[tuple(at)]} at {place}, not a finite number")
    return kept
