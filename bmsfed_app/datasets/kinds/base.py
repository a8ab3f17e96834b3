"""What a kind of modality is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from bmsfed_app.datasets.base import Renderer

Rows = dict[str, NDArray[Any]]


class Kind(ABC):
    """One modality of a data set."""

    #: Names of what is kept of a sample.
    parts: tuple[str, ...] = ("values",)
    #: Encoder where the configuration names none.
    encoder: str
    #: Number of token ids; 0 where inputs are not token ids.
    vocabulary: int = 0

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's model input."""

    @abstractmethod
    def decode(self, value: Any) -> Rows:
        """Turn a sample's value (a file, a text, an array) into what is kept, by part.

        Every sample's arrays have the same shapes and types.

        Raises
        ------
        BadSample
            If it cannot be used.
        """

    @abstractmethod
    def render(self, *rows: Tensor) -> Tensor:
        """Turn kept parts, each (b, ...), into model inputs (b, *shape)."""

    #: As ``render``, with a generator at the end: what training sees; None for the same.
    augment: Any = None

    def caption(self, value: Any) -> str:
        """Return what a reader would want to see of a value in words; empty for most kinds."""
        return ""

    def kept(self) -> str:
        """Say all that decides what is kept of a sample, and what its numbers stand for."""
        return repr(self)

    def stores(self, modality: str) -> tuple[str, ...]:
        """Names of this kind's stores for a modality."""
        return tuple(f"{modality}.{part}" for part in self.parts)

    def renderer(self, modality: str) -> Renderer:
        """Return how batches of a modality are made."""
        return Renderer(self.stores(modality), self.render, self.augment)
