"""Series of measurements, and arrays of a fixed shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets import media
from bmsfed_app.datasets.kinds.base import Kind, Rows
from bmsfed_app.datasets.media import BadSample


@dataclass(frozen=True)
class Series(Kind):
    """A series of measurements, (steps, features), stretched to its length by interpolation.

    Values: an array (T, features), or a ``.npy``, ``.csv`` or ``.txt`` file of one.
    """

    steps: int
    features: int
    encoder: str = "gru"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, self.features)

    def decode(self, value: Any) -> Rows:
        name = str(value) if isinstance(value, str | Path) else "a series"
        array = media.read_array(Path(value)) if isinstance(value, str | Path) else value
        if array.ndim != 2 or array.shape[1] != self.features or not len(array):
            raise BadSample(f"{name} is {array.shape}, expected (steps, {self.features})")
        values = torch.from_numpy(np.asarray(array, dtype=np.float32))
        if not values.isfinite().all():
            raise BadSample(f"{name} has values that are not finite")
        stretched = F.interpolate(
            values.T[None], size=self.steps, mode="linear", align_corners=True
        )
        return {"values": stretched[0].T.contiguous().numpy()}

    def render(self, *rows: Tensor) -> Tensor:
        return rows[0].float()


@dataclass(frozen=True)
class Array(Kind):
    """An array of a fixed shape, (values - offset) / scale as it enters the model.

    Kept in ``dtype``. Values: an array, or a ``.npy``, ``.csv`` or ``.txt`` file of one.
    """

    size: tuple[int, ...]
    dtype: str = "float32"
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    encoder: str = "mlp"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def decode(self, value: Any) -> Rows:
        name = str(value) if isinstance(value, str | Path) else "an array"
        array = np.asarray(
            media.read_array(Path(value)) if isinstance(value, str | Path) else value
        )
        if array.size != np.prod(self.size):
            raise BadSample(f"{name} is {array.shape}, expected {self.size}")
        if not np.isfinite(array).all():
            raise BadSample(f"{name} has values that are not finite")
        return {"values": array.reshape(self.size).astype(self.dtype)}

    def render(self, *rows: Tensor) -> Tensor:
        values = rows[0]
        offset, scale = (torch.tensor(v, device=values.device) for v in (self.offset, self.scale))
        return (values.float() - offset) / scale
