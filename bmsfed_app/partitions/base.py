"""What a partition is made of: its settings, a client's share, what can be wrong with either."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Names = NDArray[np.str_]
Scheme = Literal["iid", "dirichlet", "natural", "quantity", "pathological", "file"]
SCHEMES: tuple[str, ...] = get_args(Scheme)


class PartitionError(ValueError):
    """Samples cannot be divided as asked; the message names the culprit and the remedy."""


@dataclass(frozen=True)
class PartitionSettings:
    """How training data is divided among simulated clients; plain values that travel as JSON.

    Attributes
    ----------
    scheme : str
        One of ``SCHEMES``; see :func:`share_out`.
    alpha : float
        "dirichlet": concentration, above 0; larger is evener.
    sigma : float
        "quantity": spread of the sizes' logarithms, at least 0; 0 is even.
    classes_per_client : int
        "pathological": distinct classes of every client, at least 1.
    file : str
        "file": absolute path of the CSV file that lists each client's samples.
    min_samples : int
        Fewest samples of a client, at least 1.
    samples_per_client : int
        Most samples of a client (the paper's |D_i|); 0 is all.
    fraction : float
        Stratified share of the samples to divide, above 0, to 1.
    whole_share : float
        Share of the clients that hold all modalities, 0 to 1; see ``subsets``.
    subsets : tuple of tuples of str
        What the other clients may hold; empty stands for each single modality.
    """

    scheme: str = "iid"
    alpha: float = 1.0
    sigma: float = 1.0
    classes_per_client: int = 2
    file: str = ""
    min_samples: int = 1
    samples_per_client: int = 0
    fraction: float = 1.0
    whole_share: float = 1.0
    subsets: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PartitionSettings:
        """Build the settings from a message's values, whose tuples have become lists."""
        subsets = tuple(tuple(subset) for subset in values.get("subsets", ()))
        return cls(**{**values, "subsets": subsets})

    def describe(self) -> str:
        """Say in a line how the data is divided, leaving out what does nothing."""
        parts = [self.scheme]
        detail = {
            "dirichlet": f"alpha {self.alpha:g}",
            "quantity": f"sigma {self.sigma:g}",
            "pathological": f"{self.classes_per_client} classes per client",
            "file": self.file,
        }
        if self.scheme in detail:
            parts[0] += f" ({detail[self.scheme]})"
        if self.samples_per_client:
            parts.append(f"at most {self.samples_per_client} samples per client")
        if self.whole_share < 1:
            others = " or ".join("+".join(s) for s in self.subsets) or "one modality each"
            parts.append(
                f"{100 * self.whole_share:g} % of the clients hold all modalities, the others "
                f"{others}"
            )
        return ", ".join(parts)


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""
