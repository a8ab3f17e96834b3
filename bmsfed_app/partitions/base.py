"""What a partition is made of: its settings, what it divides, a client's share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from bmsfed_app.checked import Settings, explain
from bmsfed_app.partitions.missing import Missing
from bmsfed_app.registry import Registry

Indices = NDArray[np.int64]
Names = NDArray[np.str_]


class PartitionError(ValueError):
    """Samples cannot be divided as asked; the message names the culprit and the remedy."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What is divided: the samples kept of a training split.

    Attributes
    ----------
    labels : array (n,), int
    rows : array (n,), int64
        Their rows of the split, ascending.
    modalities : tuple of str
        The data set's.
    total : int
        Samples of the split.
    owners : array (n,) of str, optional
        Each sample's natural client: a talker, a subject, an event.
    natural : array of str, optional
        The natural clients of the whole split, sorted; some may have no sample among those kept.
    ids : array (total,) of str, optional
        Names of all samples of the split, kept or not.
    """

    labels: NDArray[Any]
    rows: Indices
    modalities: tuple[str, ...]
    total: int
    owners: Names | None = None
    natural: Names | None = None
    ids: Names | None = None


@dataclass(frozen=True, eq=False)
class Division:
    """Who has what, by a scheme.

    Attributes
    ----------
    parts : list of N arrays, int64
        Places among the :class:`Samples` of every client's, ascending.
    names : list of N str, optional
        The clients' ids, fit for folders; numbers if left out.
    held : list of N tuples of str, optional
        Their modalities, in the data set's order; by ``whole_share`` if left out.
    """

    parts: list[Indices]
    names: list[str] | None = None
    held: list[tuple[str, ...]] | None = None


class Partition(Settings, ABC):
    """How training data is divided among simulated clients; a subclass is a scheme.

    What a scheme needs to know are fields that it adds. A field named as a key of the experiment
    takes that key's value; others stand under ``partition_settings`` in the YAML file.

    Attributes
    ----------
    partition : str
        The scheme's name.
    clients : int
        How many clients the experiment is to have; 0 leaves it open.
    validation : float
        Stratified share of the samples that no client has, 0 to below 1: the server measures on
        them.
    data_fraction : float
        Stratified share of the other samples to divide, above 0, to 1.
    min_samples : int
        Fewest samples of a client, at least 1.
    samples_per_client : int
        Most samples of a client (the paper's |D_i|); 0 is all.
    whole_share : float
        Share of the clients that hold all modalities, 0 to 1; see ``subsets``.
    subsets : tuple of tuples of str
        What the other clients may hold; empty stands for each single modality.
    missing : Missing, optional
        What single samples lack of that.
    """

    partition: str
    clients: int = Field(0, ge=0)
    validation: float = Field(0.0, ge=0, lt=1)
    data_fraction: float = Field(1.0, gt=0, le=1)
    min_samples: int = Field(1, ge=1)
    samples_per_client: int = Field(0, ge=0)
    whole_share: float = Field(1.0, ge=0, le=1)
    subsets: tuple[tuple[str, ...], ...] = ()
    missing: Missing | None = None

    @model_validator(mode="after")
    def _cap_above_least(self) -> Partition:
        if 0 < self.samples_per_client < self.min_samples:
            raise ValueError(
                f"samples_per_client: 0 for all, or at least min_samples ({self.min_samples}), not "
                f"{self.samples_per_client}"
            )
        return self

    @abstractmethod
    def divide(self, samples: Samples, num_clients: int, seed: int) -> Division:
        """Divide samples among ``num_clients`` clients, each to one at most.

        Every draw comes from ``strategies.randomness.generator`` by ``seed`` and a purpose.

        Raises
        ------
        PartitionError
            If they cannot be divided so.
        """

    def own_clients(self, samples: Samples) -> int:
        """Count the clients that the data or a file itself has; 0: any number will do.

        Raises
        ------
        PartitionError
            If the samples cannot be divided so.
        """
        return 0

    def detail(self) -> str:
        """Say in a few words what the scheme's own settings are."""
        own = [name for name in type(self).model_fields if name not in Partition.model_fields]
        values = {name: getattr(self, name) for name in own}
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
        )

    def describe(self) -> str:
        """Say in a line how the data is divided, leaving out what does nothing."""
        detail = self.detail()
        parts = [f"{self.partition} ({detail})" if detail else self.partition]
        if self.validation:
            parts.append(f"{100 * self.validation:g} % of the samples kept for validation")
        if self.samples_per_client:
            parts.append(f"at most {self.samples_per_client} samples per client")
        if self.whole_share < 1:
            others = " or ".join("+".join(s) for s in self.subsets) or "one modality each"
            parts.append(
                f"{100 * self.whole_share:g} % of the clients hold all modalities, the others "
                f"{others}"
            )
        if self.missing and (what := self.missing.describe()):
            parts.append(what)
        return ", ".join(parts)


#: The schemes by name, each a class of :class:`Partition`.
PARTITIONS: Registry[type[Partition]] = Registry(
    "partition",
    "bmsfed.partitions",
    "bmsfed_app.partitions",
    error=PartitionError,
    check=lambda found: (
        None
        if isinstance(found, type) and issubclass(found, Partition)
        else "is no class of bmsfed_app.partitions.Partition"
    ),
)


def read_partition(values: Mapping[str, Any]) -> Partition:
    """Build a partition from plain values: an experiment's, or what :meth:`model_dump` returned.

    Parameters
    ----------
    values : mapping
        ``partition`` names the scheme; of the others, those that are its fields count, and those
        in ``partition_settings``, all of which must be.

    Raises
    ------
    PartitionError
        If there is no such scheme or setting, or a value is out of its range.
    """
    name = str(values.get("partition", "iid"))
    scheme = PARTITIONS.find(name)
    known = {key: values[key] for key in scheme.model_fields if key in values}
    own = values.get("partition_settings") or {}
    try:
        return scheme(**{**known, "partition": name, **own})
    except ValidationError as error:
        fault = explain(error, scheme.model_fields)
        raise PartitionError(f"partition '{name}': {fault}") from None


@dataclass(frozen=True, eq=False)
class Share:
    """What one client has.

    Attributes
    ----------
    name : str
        The client's id, fit for a folder's name.
    rows : array (n_k,), int64
        Its rows of the training split, ascending.
    modalities : tuple of str
        The modalities it holds, in the data set's order.
    """

    name: str
    rows: Indices
    modalities: tuple[str, ...]


def client_name(number: int, total: int) -> str:
    """Return the stable id of one client of ``total``, e.g. ``client-07`` of 30."""
    return f"client-{number:0{len(str(total - 1))}d}"


def client_names(total: int) -> list[str]:
    """Return the stable ids of ``total`` clients."""
    return [client_name(number, total) for number in range(total)]


def rows_by_class(labels: NDArray[Any]) -> list[Indices]:
    """Return the rows of every class that occurs, by class."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def class_counts(labels: NDArray[Any], shares: Sequence[Share], num_classes: int) -> Indices:
    """Count each client's samples of every class, (N, num_classes)."""
    counts = [np.bincount(labels[share.rows], minlength=num_classes) for share in shares]
    return np.stack(counts)
