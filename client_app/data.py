"""Which data this client has: a share of a data set in simulation, its own folder on a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmsfed_app.datasets import (
    DataError,
    DatasetInfo,
    Inputs,
    SourceSettings,
    Split,
    data_state,
    dataset_info,
    find_source,
    load_dataset,
)
from bmsfed_app.datasets.shard import load_shard
from bmsfed_app.devices import find_device
from bmsfed_app.partitions import (
    Partition,
    PartitionError,
    Share,
    experiment_data,
    held_out_rows,
    read_partition,
)
from bmsfed_app.paths import data_dir_here
from bmsfed_app.settings import ClientSettings
from client_app.node import max_batch
from strategies import ClientInfo


@dataclass(frozen=True)
class LocalData:
    """One client's training data: rows of a split that the whole process shares.

    Attributes
    ----------
    client_id : str
    split : Split
        Held once per process, on the training device.
    index : Tensor (n,), int64
        The client's rows of the split.
    modalities : tuple of str
        The modalities the client holds, in the data set's order.
    num_classes : int
    max_batch : int, optional
        What the node bounds batches to, those of passes without gradients too.
    min_class_count : int
        Of a class with fewer samples neither prototype nor count leaves the client.
    held_out : Tensor (t,), int64, optional
        Rows that are not trained on, but tested.
    whole : Tensor, int64, optional
        All rows of the client, where ``index`` is just those that :meth:`having` left.
    """

    client_id: str
    split: Split
    index: Tensor
    modalities: tuple[str, ...]
    num_classes: int
    max_batch: int | None = None
    min_class_count: int = 1
    held_out: Tensor | None = None
    whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> Tensor:
        """Labels (n,) of the client's rows."""
        labels: Tensor = self.split.labels[self.index]
        return labels

    @property
    def tested(self) -> LocalData:
        """The samples that are held out for tests, of the modalities that the client holds."""
        rows = self.index[:0] if self.held_out is None else self.held_out
        return replace(self, index=rows, held_out=None)

    def present(self, modality: str) -> Tensor | None:
        """Say which of the client's samples have a modality, (n,), bool; None: all of them."""
        mask = self.split.present.get(modality)
        own = None if mask is None else mask[self.index]
        return None if own is None or bool(own.all()) else own

    def gaps(self, modalities: Iterable[str]) -> dict[str, Tensor]:
        """Return :meth:`present` (n,) of those of some modalities that samples lack."""
        masks = {m: self.present(m) for m in modalities}
        return {m: mask for m, mask in masks.items() if mask is not None}

    def having(self, modalities: Sequence[str]) -> LocalData:
        """Return just the samples that have some of these modalities: others say nothing here."""
        gaps = self.gaps(modalities)
        if len(gaps) < len(modalities):
            return self
        some = torch.stack(list(gaps.values())).any(dim=0)
        whole = self.index if self.whole is None else self.whole
        return replace(self, index=self.index[some], whole=whole)

    def batches(
        self,
        size: int,
        modalities: tuple[str, ...],
        rng: torch.Generator | None = None,
        *,
        least: int = 1,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield (inputs by modality, labels); ``rng``, if there is one, shuffles and augments.

        A last batch of fewer than ``least`` samples is added to the one before it.
        """
        for chunk in self.chunks(size, rng, least=least):
            yield self.split.batch(chunk, modalities, rng), self.split.labels_of(chunk)

    def chunks(
        self, size: int, rng: torch.Generator | None = None, *, least: int = 1
    ) -> list[Tensor]:
        """Return the rows (b,) of the split behind each of the :meth:`batches` of one epoch."""
        order = torch.arange(len(self)) if rng is None else torch.randperm(len(self), generator=rng)
        rows = self.index[order.to(self.index.device)]
        if self.split.on_host:  # once for all batches, not with each of them
            rows = rows.cpu()
        chunks = list(rows.split(min(size, self.max_batch or size)))
        if len(chunks) > 1 and len(chunks[-1]) < least:
            chunks[-2:] = [torch.cat(chunks[-2:])]
        return chunks

    def info(self) -> ClientInfo:
        """Return how this client introduces itself to the server; small classes count 0."""
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        counts[counts < self.min_class_count] = 0
        return ClientInfo(
            self.client_id, self.modalities, len(self), tuple(int(c) for c in counts.tolist())
        )


def local_data(node_config: Mapping[str, Any], settings: ClientSettings) -> LocalData:
    """Return this client's data.

    Parameters
    ----------
    node_config : mapping
        Flower's node configuration. On a device: ``client-id``, ``data-dir`` (a folder written
        by ``bmsfed data split``) and, optionally, ``modalities`` (comma-separated) and
        ``max-batch``, and ``min-class-count``, where it is more than the experiment's. In a
        simulation: ``partition-id`` and ``num-partitions``, which Flower sets.
    settings : ClientSettings
        Names the data set and its partition; see :func:`client_app.node.on_node`.

    Raises
    ------
    DataError, PartitionError
        If the node configuration names no data, the data cannot be read or may hold what the
        server validates on, or the simulation has another number of clients than the experiment.
    """
    if "partition-id" in node_config:
        number, total = int(node_config["partition-id"]), int(node_config["num-partitions"])
        everything = _simulated(settings, total, settings.data or _present_state(settings))
        share, split, info = everything.shares[number], everything.split, everything.info
        index = torch.from_numpy(share.rows).to(split.labels.device)
        owned, client_id = share.modalities, str(node_config.get("client-id", share.name))
    elif "data-dir" in node_config and "client-id" in node_config:
        own = find_source(settings.dataset).parse(settings.dataset_settings)
        info, device = dataset_info(settings.dataset, own), training_device(settings)
        folder, validation = str(node_config["data-dir"]), settings.partition.get("validation", 0.0)
        whole, owned = _shard(folder, settings.dataset, own, settings.seed, validation)
        split, client_id = _on(whole, device), str(node_config["client-id"])
        index = torch.arange(len(split), device=device)
    else:
        raise DataError(
            "the node configuration names no data: start the SuperNode with "
            '--node-config \'client-id="NAME" data-dir="FOLDER"\''
        )
    wanted = tuple(m for m in _held(node_config, info.modalities) if m in owned)
    index, held = _with_any(split, index, wanted)
    if not held:
        raise DataError(
            f"client '{client_id}' holds none of the modalities {', '.join(info.modalities)}: "
            "mend 'modalities' in its node configuration or its data folder"
        )
    least = max(settings.min_class_count, _own_least(node_config))
    most = max_batch(node_config)
    index, tested = _divided(index, settings, client_id)
    if tested is not None:  # what is left to train on may have fewer modalities
        index, held = _with_any(split, index, held)
    return LocalData(client_id, split, index, held, info.num_classes, most, least, tested)


def _divided(
    index: Tensor, settings: ClientSettings, client_id: str
) -> tuple[Tensor, Tensor | None]:
    """Return the rows to train on and those to test, the same ones in every round."""
    if settings.holdout == 0:
        return index, None
    held_out = held_out_rows(len(index), settings.holdout, settings.seed, client_id)
    mask = torch.from_numpy(held_out).to(index.device)
    return index[~mask], index[mask]


def training_device(settings: ClientSettings) -> torch.device:
    """Return where to train: the GPU if there is one and ``device`` is "auto"."""
    return find_device(settings.device)


def _held(node_config: Mapping[str, Any], modalities: tuple[str, ...]) -> tuple[str, ...]:
    named = [m.strip() for m in str(node_config.get("modalities", "")).split(",") if m.strip()]
    if unknown := sorted(set(named) - set(modalities)):
        raise DataError(
            f"the node configuration names modality '{unknown[0]}', the data set has "
            f"{', '.join(modalities)}"
        )
    return tuple(m for m in modalities if not named or m in named)


def _with_any(
    split: Split, index: Tensor, modalities: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the rows that have any of some modalities, and the modalities that any of them has."""
    if not any(m in split.present for m in modalities):
        return index, modalities
    whole = torch.ones_like(index, dtype=torch.bool)
    there = [split.present[m][index] if m in split.present else whole for m in modalities]
    held = tuple(m for m, rows in zip(modalities, there, strict=True) if rows.any())
    return index[torch.stack(there).any(dim=0)], held


def _own_least(node_config: Mapping[str, Any]) -> int:
    given = node_config.get("min-class-count", 1)
    if not str(given).isdecimal() or int(given) < 1:
        raise DataError(
            f"the node configuration has min-class-count={given!r}: a whole number of 1 or more"
        )
    return int(given)


@dataclass(frozen=True)
class _Simulation:
    """What all simulated clients of a process share: the training data, and how it is divided."""

    info: DatasetInfo
    split: Split
    shares: list[Share]


# A round's settings are others than the last one's by their learning rate alone: the data is
# loaded, moved and divided once all the same, by what the functions below keep.
@lru_cache(maxsize=2)
def _simulated(settings: ClientSettings, total: int, state: str) -> _Simulation:
    """Load and divide the training data of ``total`` clients, in a state: its fingerprint."""
    own = find_source(settings.dataset).parse(settings.dataset_settings)
    data = load_dataset(
        settings.dataset,
        data_dir_here(settings.data_dir),
        seed=settings.seed,
        settings=own,
        splits=("train",),
        fingerprint=state,
    )
    assert data.train is not None
    partition = read_partition(settings.partition)
    if partition.clients not in (0, total):
        raise PartitionError(
            f"the experiment has clients: {partition.clients}, this federation {total}: start "
            f"it with num-supernodes={partition.clients}, or set clients={total}"
        )
    split, shares = _shared(data.train, partition, total, settings.seed)
    return _Simulation(data.info, _on(split, training_device(settings)), shares)


def _present_state(settings: ClientSettings) -> str:
    """The state that the data is in, where the server did not look at it."""
    return data_state(settings.dataset, data_dir_here(settings.data_dir), settings.dataset_settings)


# Splits are themselves and nothing else, so what is kept of them goes by who they are.


@lru_cache(maxsize=2)
def _on(split: Split, device: torch.device) -> Split:
    return split.to(device)


@lru_cache(maxsize=2)
def _shared(split: Split, partition: Partition, total: int, seed: int) -> tuple[Split, list[Share]]:
    return experiment_data(split, partition, total, seed=seed)


@lru_cache(maxsize=2)
def _shard(
    folder: str, name: str, settings: SourceSettings, seed: int, validation: float
) -> tuple[Split, tuple[str, ...]]:
    info = dataset_info(name, settings)
    return load_shard(Path(folder), info, seed=seed, validation=validation)
