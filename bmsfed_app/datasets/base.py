"""What a data set is: splits kept compactly, rendered to model inputs batch by batch.

A split's stores lie in memory or are mapped from files: then only the rows of a batch are read, and
all processes of a machine share the pages. Samples may lack a modality: masks say which. Shape
legend: n samples of a split, b of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Larger stores stay on the host when a split moves to a GPU; their rows follow batch by batch.
RESIDENT_BYTES = 2**30


class DataError(ValueError):
    """Data cannot be used; the message names the culprit and the remedy."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the host to a GPU it goes while the GPU works on.

    What is not pinned is first copied to memory that the GPU reads by itself.
    """
    if tensor.device.type != "cpu" or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=64)
def constant(values: Any, device: torch.device) -> Tensor:
    """Return numbers that renderers need with every batch, on a device; not to be written to.

    Parameters
    ----------
    values : float, or tuple of float or of such tuples
    """
    with torch.inference_mode(False):  # whoever asks first, others may want gradients
        return torch.tensor(values, device=device)


@dataclass(frozen=True)
class Renderer:
    """How one modality's inputs come from the stores.

    Attributes
    ----------
    stores : tuple of str
        Names of the stores it reads.
    render : callable
        Takes the batch's rows of those stores, in that order, each (b, ...), and returns the
        inputs (b, *shape): float32, or int64 for token ids. Deterministic, sample by sample
        independent.
    augment : callable, optional
        As ``render``, with a ``torch.Generator`` (CPU) after the rows: what training sees instead.
    """

    stores: tuple[str, ...]
    render: Callable[..., Tensor]
    augment: Callable[..., Tensor] | None = None


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
    encoders : dict
        Encoder by modality where the configuration names none.
    vocabularies : dict
        Number of token ids, for modalities whose inputs are token ids.
    natural : str
        What the data set's natural clients are, e.g. "talkers"; empty if it knows none.
    kept : dict
        How samples are kept, by modality, where settings decide it: rows of data that is kept
        otherwise would be read as something else.
    """

    name: str
    modalities: tuple[str, ...]
    num_classes: int
    class_names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    renderers: Mapping[str, Renderer]
    encoders: Mapping[str, str] = field(default_factory=dict)
    vocabularies: Mapping[str, int] = field(default_factory=dict)
    natural: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)


class Inputs(dict[str, Tensor]):
    """Model inputs (b, *shape) by modality, and which samples have them.

    Attributes
    ----------
    present : dict
        By modality of which samples of the split lack some: Tensor (b,), bool, True where the
        sample has it. The inputs of the others are zeros, which no encoder is to see.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(inputs or {})
        self.present: dict[str, Tensor] = dict(present or {})


@dataclass(frozen=True, eq=False)
class Split:
    """One split, in memory or mapped from files.

    Attributes
    ----------
    labels : Tensor (n,), int64
        Its device is where batches are made.
    stores : dict
        Raw tensors by name, each with first dimension n, as compact as they come.
    renderers : dict
        How inputs come from the stores, for each modality that this split holds.
    owners : array (n,) of str, optional
        Each sample's natural client: a talker, a subject, an event.
    ids : array (n,) of str, optional
        Each sample's name in the data set.
    present : dict
        By modality that samples lack: Tensor (n,), bool, True where the sample has it. A modality
        that all samples have is not in it.
    """

    labels: Tensor
    stores: Mapping[str, Tensor]
    renderers: Mapping[str, Renderer]
    owners: NDArray[np.str_] | None = None
    ids: NDArray[np.str_] | None = None
    present: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities this split can render."""
        return tuple(self.renderers)

    def batch(
        self, index: Tensor, modalities: Sequence[str], rng: torch.Generator | None = None
    ) -> Inputs:
        """Return model inputs of some samples; only what is asked for is computed.

        Parameters
        ----------
        index : Tensor (b,), int64
            Rows of the split, on its device or the host; on the host if some of its stores are
            there: what is on the device must be waited for to be looked up there.
        modalities : sequence of str
        rng : torch.Generator, optional
            On the CPU. With it, modalities that have an augmentation are augmented.

        Returns
        -------
        Inputs
            (b, *shape) by modality; zeros where a sample lacks it.

        Raises
        ------
        DataError
            If the split does not hold a modality.
        """
        self._check_held(modalities)
        needed = {s for m in modalities for s in self.renderers[m].stores}
        rows = {s: self._rows(s, index) for s in needed}
        inputs = Inputs()
        for modality in modalities:
            renderer = self.renderers[modality]
            own = [rows[s] for s in renderer.stores]
            if rng is not None and renderer.augment is not None:
                inputs[modality] = renderer.augment(*own, rng)
            else:
                inputs[modality] = renderer.render(*own)
            if (mask := self.present.get(modality)) is not None:
                there = mask.index_select(0, sent(index, mask.device))
                inputs.present[modality] = there
                rest = (1,) * (inputs[modality].dim() - 1)
                inputs[modality] = inputs[modality].where(there.view(-1, *rest), 0)
        return inputs

    def labels_of(self, index: Tensor) -> Tensor:
        """Return the labels (b,) of some rows; ``index`` as in :meth:`batch`."""
        return self.labels.index_select(0, sent(index, self.labels.device))

    @property
    def on_host(self) -> bool:
        """Whether some stores are on the host while batches are made on a device."""
        return any(store.device != self.labels.device for store in self.stores.values())

    def _rows(self, name: str, index: Tensor) -> Tensor:
        store = self.stores[name]
        # index_select is ten times faster than indexing for small rows on a CPU.
        return sent(store.index_select(0, sent(index, store.device)), self.labels.device)

    def subset(self, index: Tensor) -> Split:
        """Return a copy of some rows; ``index`` (b,), int64, as in :meth:`batch`."""
        rows = index.cpu().numpy()
        named: dict[str, Any] = {
            "owners": None if self.owners is None else self.owners[rows],
            "ids": None if self.ids is None else self.ids[rows],
        }
        stores = {name: self._rows(name, index) for name in self.stores}
        there = {m: mask[sent(index, mask.device)] for m, mask in self.present.items()}
        return replace(self, labels=self.labels_of(index), stores=stores, **named).lacking(there)

    def lacking(self, present: Mapping[str, Tensor]) -> Split:
        """Return the split with other masks (n,), bool; those of what nobody lacks are left out."""
        gaps = {m: mask.to(self.labels.device) for m, mask in present.items() if not mask.all()}
        return replace(self, present=gaps)

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
        present = {m: mask for m, mask in self.present.items() if m in renderers}
        return replace(self, stores=stores, renderers=renderers, present=present)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on another device; shares memory where it is there already.

        Stores above ``RESIDENT_BYTES`` stay where they are, and are read batch by batch.
        """
        stores = {
            name: store if store.nbytes > RESIDENT_BYTES else store.to(device)
            for name, store in self.stores.items()
        }
        present = {m: mask.to(device) for m, mask in self.present.items()}
        return replace(self, labels=self.labels.to(device), stores=stores, present=present)

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
