"""How a round is put to different kinds of clients, and how their answers are read.

Three kinds: clients of our app (:class:`Native`), clients of other apps that have
:class:`strategies.client.ModalityMod` (:class:`Modded`), and clients of other apps without it
(:class:`Plain`). The federation's loop knows none of them, only what each node's dialect says.
"""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from ..aggregation import imbalance_ratios
from ..decisions import Decisions
from ..messages import Arrays, Assignment, ClientInfo, Task, Update
from .parts import Parts
from .strict import a_count, finite_metrics
from .transport import Outgoing
from .wire import (
    MEASURE,
    TRAIN,
    Encoder,
    decode_arrays,
    pack_orders,
    pack_task,
    unpack_measurements,
    unpack_update,
)

#: Scores are clamped below here, so that every ratio is finite.
MIN_SCORE = 1e-12

#: Message type by which flwr asks for an evaluation.
EVALUATE = "evaluate"

#: Keys of the config that a client of another app reads; its own keys stand beside them.
ROUND, MODALITIES, PROBING = "server-round", "modalities", "probe"

#: Metrics by which a client says how well each modality does alone, such as ``score.image``.
SCORE = "score."

#: Properties by which a client of the older interface says who it is.
CLIENT_ID, NUM_SAMPLES = "client-id", "num-samples"

#: On the classic interface, besides: the names of the arrays sent, as JSON, in their order.
NAMES = "names"


class Dialect(ABC):
    """How one kind of client is spoken with."""

    @abstractmethod
    def pack(self, task: Task, client: ClientInfo, encode: Encoder) -> Outgoing:
        """Turn a task into a message's type and content."""

    @abstractmethod
    def read(self, task: Task, content: RecordDict) -> Update:
        """Read what a client answered to a task.

        Raises
        ------
        Exception
            Of any kind if it cannot be read; :meth:`in_words` explains it.
        """

    def assign(self, assignment: Assignment, client: ClientInfo) -> Assignment:
        """Return what the client will do when it is told an assignment: just that."""
        return assignment

    #: Whether a client's data is as large in every answer as it said when it enrolled.
    counts_samples: ClassVar[bool] = True

    def owed(self, task: Task, expected: Arrays) -> Arrays:
        """Return the arrays that an answer must hold, given those that the method expects."""
        return expected

    def complete(self, update: Update, task: Task, expected: Arrays, decisions: Decisions) -> None:
        """Turn a valid answer, in place, into what the method expects."""
        return None

    def in_words(self, fault: str | Exception) -> str:
        """Say what is wrong with an answer in words that the client's author understands."""
        if isinstance(fault, str):
            return fault
        return f"unreadable answer: {fault if isinstance(fault, ValueError) else repr(fault)}"


@dataclass
class Native(Dialect):
    """Clients of our app: they are told all, and answer with what the method expects.

    Attributes
    ----------
    settings : dict
        What the experiment tells everybody, as JSON values.
    """

    settings: dict[str, Any] = field(default_factory=dict)

    def pack(self, task: Task, client: ClientInfo, encode: Encoder) -> Outgoing:
        """Turn a task into a message's type and content."""
        kind = TRAIN if task.orders.kind == "train" else MEASURE
        return kind, pack_task(task, self.settings, encode)

    def read(self, task: Task, content: RecordDict) -> Update:
        """Read an answer of our app."""
        return unpack_update(task.orders.client_id, content)


@dataclass(frozen=True)
class Keys:
    """Under which keys a message holds what, by flwr's names and defaults.

    Attributes
    ----------
    arrays, config : str
        Records of what is sent (``arrayrecord_key``, ``configrecord_key``).
    weight : str
        Metric that weighs an answer (``weighted_by_key``).
    loss : str
        Metric of an evaluation that holds the loss, where a method asks for it.
    """

    arrays: str = "arrays"
    config: str = "config"
    weight: str = "num-examples"
    loss: str = "eval_loss"


@dataclass(frozen=True)
class Parcel:
    """What :class:`strategies.client.ModalityMod` must know besides the orders.

    Attributes
    ----------
    withheld : list of (int, str, str, list of int)
        Place, name, type and shape of each array that was not sent.
    encoder_of : dict
        Modality by name, of the encoders' arrays that were sent.
    held : int
        How many modalities the client holds.
    """

    withheld: list[tuple[int, str, str, list[int]]]
    encoder_of: dict[str, str]
    held: int

    def pack(self) -> dict[str, str]:
        """Return it as a config's entry."""
        return {"parcel": json.dumps(dataclasses.asdict(self))}

    @classmethod
    def unpack(cls, config: Mapping[str, Any]) -> Parcel:
        """Read what :meth:`pack` packed."""
        return cls(**json.loads(str(config["parcel"])))


@dataclass
class Plain(Dialect):
    """Clients of other apps: they train the whole model, and answer with arrays and metrics.

    They are sent what flwr's own strategies would send.

    Attributes
    ----------
    parts : Parts
        The model's names, which are not ours.
    keys : Keys
    model : dict
        The global model, by the strategies' names.
    config : mapping
        The user's own entries of the config.
    whole : bool
        Whether everybody is sent the whole model.
    """

    counts_samples: ClassVar[bool] = False

    parts: Parts
    keys: Keys
    model: Arrays = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False

    def assign(self, assignment: Assignment, client: ClientInfo) -> Assignment:
        """Return all that the client holds: it trains that, whatever it is told."""
        return dataclasses.replace(assignment, modalities=client.modalities)

    def pack(self, task: Task, client: ClientInfo, encode: Encoder) -> Outgoing:
        """Turn a task into a message's type and content."""
        if self.whole:
            task.arrays = {**self.model, **task.arrays}
        arrays = self.parts.outside(task.arrays)
        entries = {**self.config, ROUND: task.orders.round, **self.told(task, arrays, client)}
        content = RecordDict(
            {self.keys.arrays: encode(arrays), self.keys.config: ConfigRecord(entries)}
        )
        return (EVALUATE if task.orders.kind == "loss" else TRAIN), content

    def told(self, task: Task, arrays: Arrays, client: ClientInfo) -> dict[str, Any]:
        """Return the config's entries besides flwr's: none."""
        return {}

    def read(self, task: Task, content: RecordDict) -> Update:
        """Read what a client of another app answered.

        Raises
        ------
        ValueError
            If something is missing, saying what the client should return.
        """
        client_id, keys = task.orders.client_id, self.keys
        measured = [r for r in content.config_records.values() if "update" in r]
        update = unpack_measurements(client_id, measured[0]) if measured else Update(client_id, ())
        update.modalities = task.orders.modalities
        metrics = {k: v for r in content.metric_records.values() for k, v in r.items()}
        weight = metrics.pop(keys.weight, None)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(
                f"its metrics lack the number '{keys.weight}': return it, or set weighted_by_key"
            )
        if not math.isfinite(weight):
            raise ValueError(f"its '{keys.weight}' is {weight}")
        update.num_samples = a_count(int(weight), f"'{keys.weight}'")
        update.metrics = finite_metrics(metrics)
        _take_scores(update)
        if task.orders.kind == "loss":
            if keys.loss not in update.metrics:
                raise ValueError(
                    f"its evaluation's metrics {sorted(update.metrics)} lack '{keys.loss}': return "
                    "the loss under this key, or set loss_key"
                )
            update.measurements["loss"] = np.array([update.metrics[keys.loss]], np.float32)
            return update
        records = list(content.array_records.values())
        if len(records) != 1:
            raise ValueError(f"it answered with {len(records)} array records, expected exactly one")
        sent = self.parts.outside(task.arrays)
        update.arrays = self.parts.inside(_arrays(records[0], sent, self.parts))
        return update

    def owed(self, task: Task, expected: Arrays) -> Arrays:
        """Return all that was sent: other apps give everything back."""
        return {} if task.orders.kind == "loss" else task.arrays

    def complete(self, update: Update, task: Task, expected: Arrays, decisions: Decisions) -> None:
        """Measure what other apps do not, and drop what they were not to train."""
        if task.orders.kind == "loss":
            return
        decisions.complete(update, task.arrays)
        update.arrays = {n: v for n, v in update.arrays.items() if n in expected}

    def in_words(self, fault: str | Exception) -> str:
        """Say what is wrong, in the model's own names and with the remedy."""
        if isinstance(fault, ValueError):
            return str(fault)
        if isinstance(fault, Exception):
            return super().in_words(fault)
        remedy = (
            "; answer with all the arrays that were sent" if fault.startswith("missing") else ""
        )
        return self.parts.in_words(fault) + remedy


class Modded(Plain):
    """Clients of other apps that have the mod: they train what they are told, and may measure."""

    def assign(self, assignment: Assignment, client: ClientInfo) -> Assignment:
        """Return the assignment: it is followed."""
        return assignment

    def told(self, task: Task, arrays: Arrays, client: ClientInfo) -> dict[str, Any]:
        """Return orders, what is withheld, and in plain words what to do."""
        parcel = Parcel(
            [
                (place, name, str(value.dtype), list(value.shape))
                for place, (name, value) in enumerate(self.parts.outside(self.model).items())
                if name not in arrays
            ],
            {n: m for n in arrays if (m := self.parts.encoder_of(n))},
            len(client.modalities),
        )
        orders = task.orders
        plainly = {MODALITIES: list(orders.modalities), PROBING: orders.kind != "train"}
        return {**pack_orders(orders), **parcel.pack(), **plainly}


def _take_scores(update: Update) -> None:
    """Scores of modalities, and their ratios (Eq. 17), of a client that gives them as metrics."""
    if not update.scores:
        found = {k.removeprefix(SCORE): v for k, v in update.metrics.items() if k.startswith(SCORE)}
        update.scores = {m: max(v, MIN_SCORE) for m, v in found.items() if m in update.modalities}
    if len(update.scores) > 1 and not update.ratios:
        update.ratios = imbalance_ratios(update.scores)


def _arrays(record: ArrayRecord, sent: Arrays, parts: Parts) -> Arrays:
    """The answer's arrays in the types that were sent (numpy code easily returns float64)."""
    arrays = decode_arrays(record)
    if unknown := [n for n in arrays if n not in parts.part_of]:
        raise ValueError(
            f"array '{unknown[0]}' is no parameter of the model ({len(unknown)} unknown): answer "
            "with the names that were sent"
        )
    for name, value in arrays.items():
        want = sent[name].dtype if name in sent else value.dtype
        if np.issubdtype(value.dtype, np.floating) and np.issubdtype(want, np.floating):
            arrays[name] = value.astype(want, copy=False)
    return arrays
