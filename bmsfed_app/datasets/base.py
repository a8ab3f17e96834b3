"""What a data set is: splits held compactly in memory, rendered to model inputs batch by batch.

Shape legend: n samples of a split, b samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


class DataError(ValueError):
    """Data cannot be used; the message names the culprit and the remedy."""


@dataclass(frozen=True)
class Renderer:
    """How one modality's inputs come from the stores.

    Attributes
    ----------
    stores : tuple of str
        Names of the stores it reads.
    render : callable
        Takes the batch's rows of those stores, in that order, each (b, ...), and returns the
        inputs (b, *shape) as float32. Deterministic, sample by sample independent.
    """

    stores: tuple[str, ...]
    render: Callable[..., Tensor]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without loading it.

    Attributes
    ----------
    name : str
    modalities : tuple of str
        Strong first, as trained.
    num_classes : int
    class_names : tuple of str
    shapes : dict
        Shape of one sample's model input, by modality.
    renderers : dict
        How inputs come from the stores, by modality.
    """

    name: str
    modalities: tuple[str, ...]
    num_classes: int
    class_names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    renderers: Mapping[str, Renderer]


@dataclass(frozen=True, eq=False)
class Split:
    """One split in memory, on one device.

    Attributes
    ----------
    labels : Tensor (n,), int64
    stores : dict
        Raw tensors by name, each with first dimension n, as compact as they come.
    renderers : dict
        How inputs come from the stores, for each modality that this split holds.
    """

    labels: Tensor
    stores: Mapping[str, Tensor]
    renderers: Mapping[str, Renderer]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities this split can render."""
        return tuple(self.renderers)

    def batch(self, index: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
        """Return model inputs of some samples; only what is asked for is computed.

        Parameters
        ----------
        index : Tensor (b,), int64
            Rows of the split, on its device.
        modalities : sequence of str

        Returns
        -------
        dict
            Inputs (b, *shape), float32, by modality.

        Raises
        ------
        DataError
            If the split does not hold a modality.
        """
        self._check_held(modalities)
        needed = {s for m in modalities for s in self.renderers[m].stores}
        # index_select is ten times faster than indexing for small rows on a CPU.
        rows = {s: self.stores[s].index_select(0, index) for s in needed}
        return {
            m: self.renderers[m].render(*(rows[s] for s in self.renderers[m].stores))
            for m in modalities
        }

    def subset(self, index: Tensor) -> Split:
        """Return a copy of some rows; ``index`` is (b,), int64, on the split's device."""
        stores = {name: store.index_select(0, index) for name, store in self.stores.items()}
        return replace(self, labels=self.labels.index_select(0, index), stores=stores)

    def only(self, modalities: Sequence[str]) -> Split:
        """Return the split with just some of its modalities and the stores they read.

        Raises
        ------
        DataError
            If the split does not hold a modality.
        """
        self._check_held(modalities)
        renderers = {m: self.renderers[m] for m in modalities}
        needed = {s for r in renderers.values() for s in r.stores}
        stores = {name: store for name, store in self.stores.items() if name in needed}
        return replace(self, stores=stores, renderers=renderers)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on another device; shares memory where it is there already."""
        stores = {name: store.to(device) for name, store in self.stores.items()}
        return replace(self, labels=self.labels.to(device), stores=stores)

    def class_counts(self, num_classes: int) -> Tensor:
        """Count the samples of every class, (num_classes,), int64."""
        return torch.bincount(self.labels, minlength=num_classes)

    def _check_held(self, modalities: Sequence[str]) -> None:
        if absent := [m for m in modalities if m not in self.renderers]:
            raise DataError(
                f"this split holds no modality '{absent[0]}', only {', '.join(self.modalities)}: "
                "ask for what it holds"
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's loaded splits; None marks one that was not asked for."""

    info: DatasetInfo
    train: Split | None
    test: Split | None
