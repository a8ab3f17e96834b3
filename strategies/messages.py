"""What the server and its clients say to each other, as plain dataclasses of numpy arrays.

Nothing here knows how it travels: :mod:`strategies.federation.wire` turns it into Flower's records
and back. Arrays are named like a state dict (``encoders.<modality>.…``, ``head.…``); the name's
prefix is the *part*, the unit that travels and is averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: Named arrays, keyed like a state dict.
Arrays = dict[str, NDArray[Any]]

#: What a client is to do: train; measure (prototypes, ratios, signatures) at the received model;
#: answer nothing but the model's loss on its data; or count what the model gets right of the
#: samples that the client holds out.
Kind = Literal["train", "measure", "loss", "test"]


#: What a client counts when it tests, among an answer's metrics: samples, and those that are right.
TESTED, RIGHT = "tested", "right"


@dataclass(frozen=True)
class ClientInfo:
    """A data holder as it introduced itself.

    Attributes
    ----------
    client_id : str
        Stable over reconnections, unlike Flower's node id.
    modalities : tuple of str
        The modalities the client holds, at least one.
    num_samples : int
        Training samples.
    class_counts : tuple of int
        Training samples per class; empty where unknown.
    """

    client_id: str
    modalities: tuple[str, ...]
    num_samples: int = 1
    class_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """A method's decision on one client: the modalities that it trains this round, and why.

    Attributes
    ----------
    client_id : str
    modalities : tuple of str
        To train; at least one, all of them held by the client.
    reasons : mapping
        JSON values behind the decision, for history and console: ``role`` ("multi": trains all
        it holds, "uni": one modality alone), costs, the ratio, … ; not part of equality.
    """

    client_id: str
    modalities: tuple[str, ...]
    reasons: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON values, for history and console."""
        return {"client": self.client_id, "modalities": list(self.modalities), **self.reasons}


@dataclass(frozen=True)
class Prototypes:
    """Class means of one modality's features (Eqs. 5, 14).

    Attributes
    ----------
    means : array (C, d), float32
        Row ``j`` is the mean feature of class ``j``; meaningless where ``counts[j] == 0``.
    counts : array (C,), int64
        Samples behind each mean.
    """

    means: NDArray[np.float32]
    counts: NDArray[np.int64]

    def copy(self) -> Prototypes:
        """Return the same in memory of its own."""
        return Prototypes(self.means.copy(), self.counts.copy())


@dataclass(frozen=True)
class SignatureOrders:
    """What a client measures for selection; see :class:`strategies.signatures.SignatureStrategy`.

    Attributes
    ----------
    gradient : {"decoupled", "update"}
        Gradients at the received model, or the model's change over local training.
    sketch_dim : int
        Numbers of a sketch; 0 sends the exact vector.
    probe_batches : int
        Mini-batches behind a decoupled signature.
    seed : int
        Of the sketch; shared by all clients, so that sketches can be compared.
    enhancing : bool
        Whether to measure enhancing gradients besides the multi-modal one.
    """

    gradient: Literal["decoupled", "update"] = "decoupled"
    sketch_dim: int = 4096
    probe_batches: int = 1
    seed: int = 0
    enhancing: bool = True


@dataclass(frozen=True)
class Orders:
    """All that a strategy tells one client in one message, but the model.

    What the experiment fixes for everybody (batch size, learning rate, …) is not said here: clients
    of our app receive it beside the orders, see :meth:`strategies.ModalityStrategy.run`.

    Attributes
    ----------
    kind : {"train", "measure", "loss", "test"}
    modalities : tuple of str
        To train or to measure.
    round : int
        From 1.
    client_id : str
        Whom the orders are for; with ``round`` it seeds what the client draws.
    measure_prototypes : bool
        Whether the strategy needs the client's prototypes and imbalance ratios.
    prototypes : mapping
        Global prototypes by modality (Eq. 15), where there are any to share.
    weak : str or None
        The globally weak modality (Eq. 18), where one is known.
    ratio : float
        The client's last known imbalance ratio of the weak modality; 1 where none is.
    signature : SignatureOrders or None
        What to sign and how; None: nothing.
    method_state : mapping
        JSON values that the method's local objective must know.
    """

    kind: Kind
    modalities: tuple[str, ...]
    round: int = 0
    client_id: str = ""
    measure_prototypes: bool = False
    prototypes: Mapping[str, Prototypes] = field(default_factory=dict)
    weak: str | None = None
    ratio: float = 1.0
    signature: SignatureOrders | None = None
    method_state: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """What one client receives: its orders and the arrays that they need, by state-dict name."""

    orders: Orders
    arrays: Arrays = field(default_factory=dict)


@dataclass
class Update:
    """What one client answers to a :class:`Task`.

    Its arrays are lent: they may lie in memory that is shared with other processes and freed after
    the round. Nobody writes into them; whoever keeps one beyond the round keeps a copy.

    Attributes
    ----------
    client_id : str
        Filled in by the server from its fleet when the update came over Flower.
    modalities : tuple of str
        The modalities trained (or measured, in a probe).
    num_samples : int
        Aggregation weight, of what all modalities share; see :meth:`samples`.
    arrays : dict
        The parts that were trained, by state-dict name; empty in a probe.
    prototypes : dict
        Local prototypes by modality.
    scores : dict
        Score of each trained modality over the local training set (Eq. 16), above 0.
    ratios : dict
        Imbalance ratio by modality (Eq. 17); empty where fewer than two were trained.
    signatures : dict
        Vectors for selection: ``"multi"`` and ``"enhance.<modality>"``, each (d,).
    measurements : dict
        Further float arrays that a particular method asks for, by name.
    metrics : dict
        Losses, seconds and the like, for the history.
    sender : str
        The client id that the answer itself names; empty where it names none.
    held : tuple of str
        All modalities that the sender holds.
    present : dict
        Samples that have a modality, by modality trained that some of ``num_samples`` lack.
    """

    client_id: str
    modalities: tuple[str, ...]
    num_samples: int = 1
    arrays: Arrays = field(default_factory=dict)
    prototypes: dict[str, Prototypes] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    measurements: Arrays = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    sender: str = ""
    held: tuple[str, ...] = ()
    present: dict[str, int] = field(default_factory=dict)

    def samples(self, modality: str | None) -> int:
        """Return the samples behind what belongs to a modality; None: behind what all share."""
        # Weights are bounded by num_samples, wherever that is lowered.
        return min(self.present.get(modality or "", self.num_samples), self.num_samples)


def copied(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return arrays in memory of their own, to keep what an :class:`Update` lends."""
    return {name: np.array(value) for name, value in arrays.items()}


# --- parts ---------------------------------------------------------------------------------


def modalities_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the modalities that state-dict names mention, in order of appearance.

    >>> modalities_of(["encoders.gray.weight", "encoders.color.weight", "head.bias"])
    ('gray', 'color')
    """
    found = (name.split(".")[1] for name in names if name.startswith("encoders."))
    return tuple(dict.fromkeys(found))


def owner(name: str) -> str | None:
    """Return the modality that an array belongs to, or None where all share it.

    ``encoders.<modality>.…`` and ``head.<name>.<modality>`` have one, ``head.<name>`` has none.

    >>> owner("encoders.gray.conv1.weight"), owner("head.weight.gray"), owner("head.bias")
    ('gray', 'gray', None)
    """
    scope, *path = name.split(".")
    if scope == "encoders":
        return path[0]
    return path[1] if len(path) > 1 else None


def select_parts(arrays: Arrays, modalities: Iterable[str]) -> Arrays:
    """Return the arrays that training ``modalities`` needs: their own and the shared ones."""
    wanted = {None, *modalities}
    return {name: value for name, value in arrays.items() if owner(name) in wanted}
