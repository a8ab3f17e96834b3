"""What travels between the server and its clients.

One message carries one ``ArrayRecord`` whose keys are state-dict names (``encoders.<modality>.…``,
``head.…``; the name's prefix is the *part*), and one ``ConfigRecord`` with settings as JSON and
with prototypes, class counts, signatures and measurements as one safetensors blob.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

#: Raised by one whenever a message changes its meaning; both sides must agree.
PROTOCOL_VERSION = 3

#: Message types: a node introduces itself; measures without training; trains.
ENROL, PROBE, TRAIN = "query.enrol", "query.probe", "train"

#: Named arrays, keyed like a state dict.
Arrays = dict[str, NDArray[Any]]


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
    """The modalities that one client trains this round."""

    client_id: str
    modalities: tuple[str, ...]


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


@dataclass
class Task:
    """What the server sends to one client."""

    modalities: tuple[str, ...]
    arrays: Arrays = field(default_factory=dict)
    prototypes: dict[str, Prototypes] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Update:
    """What one client answers to a :class:`Task`.

    Attributes
    ----------
    client_id : str
        Filled in by the server from its fleet when the update came over Flower.
    modalities : tuple of str
        The modalities trained (or measured, in a probe).
    num_samples : int
        Aggregation weight.
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


# --- records -------------------------------------------------------------------------------


def array_record(arrays: Arrays, made: dict[int, Array] | None = None) -> ArrayRecord:
    """Return arrays as Flower's record, in their order.

    Parameters
    ----------
    arrays : dict
        Alive at least as long as ``made``.
    made : dict, optional
        What was serialised before, by the array's ``id``: what goes to many clients is then
        serialised once.
    """
    made = {} if made is None else made
    for value in arrays.values():
        if id(value) not in made:
            made[id(value)] = Array(value)
    return ArrayRecord({name: made[id(value)] for name, value in arrays.items()})


def _blob(
    prototypes: Mapping[str, Prototypes],
    signatures: Mapping[str, NDArray[np.float32]],
    measurements: Mapping[str, NDArray[Any]],
) -> bytes:
    tensors: Arrays = {}
    for modality, p in prototypes.items():
        tensors[f"prototypes/{modality}/means"] = np.ascontiguousarray(p.means)
        tensors[f"prototypes/{modality}/counts"] = np.ascontiguousarray(p.counts)
    for name, vector in signatures.items():
        tensors[f"signatures/{name}"] = np.ascontiguousarray(vector)
    for name, array in measurements.items():
        tensors[f"measurements/{name}"] = np.ascontiguousarray(array)
    return save_safetensors(tensors) if tensors else b""


def _unblob(data: bytes) -> tuple[dict[str, Prototypes], dict[str, NDArray[np.float32]], Arrays]:
    """Prototypes, signatures and measurements of a blob."""
    tensors = load_safetensors(data) if data else {}
    names = [n.split("/")[1] for n in tensors if n.startswith("prototypes/")]
    prototypes = {
        m: Prototypes(tensors[f"prototypes/{m}/means"], tensors[f"prototypes/{m}/counts"])
        for m in dict.fromkeys(names)
    }
    return prototypes, _below("signatures/", tensors), _below("measurements/", tensors)


def _below(prefix: str, tensors: Arrays) -> Arrays:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _packed(blob: bytes) -> dict[str, bytes]:
    """A config's entry; none if empty, over which flwr's ``message_size_mod`` stumbles."""
    return {"blob": blob} if blob else {}


def pack_orders(task: Task) -> dict[str, str | bytes]:
    """Return all of a task but its arrays, as a header and a blob."""
    header = json.dumps({"modalities": task.modalities, "settings": task.settings})
    return {"task": header, **_packed(_blob(task.prototypes, {}, {}))}


def unpack_orders(config: Mapping[str, Any]) -> Task:
    """Read what :func:`pack_orders` packed: a task without arrays."""
    header = json.loads(str(config["task"]))
    prototypes, _, _ = _unblob(_bytes(config.get("blob", b"")))
    return Task(tuple(header["modalities"]), prototypes=prototypes, settings=header["settings"])


def pack_task(task: Task, made: dict[int, Array] | None = None) -> RecordDict:
    """Turn a task into the content of a message; ``made`` as for :func:`array_record`."""
    config = ConfigRecord(dict(pack_orders(task)))
    return RecordDict({"arrays": array_record(task.arrays, made), "config": config})


def unpack_task(content: RecordDict) -> Task:
    """Read a task from the content of a message."""
    task = unpack_orders(content.config_records["config"])
    task.arrays = read_arrays(content)
    return task


def pack_measurements(update: Update) -> dict[str, str | bytes]:
    """Return all of an answer but its arrays and metrics, as a header and a blob."""
    header = json.dumps(
        {
            "modalities": update.modalities,
            "num_samples": update.num_samples,
            "scores": update.scores,
            "ratios": update.ratios,
        }
    )
    blob = _blob(update.prototypes, update.signatures, update.measurements)
    return {"update": header, **_packed(blob)}


def pack_update(update: Update) -> RecordDict:
    """Turn a client's answer into the content of a message."""
    config = ConfigRecord(dict(pack_measurements(update)))
    # flwr's own mods and strategies look for "num-examples".
    metrics = MetricRecord({"num-examples": update.num_samples, **update.metrics})
    return RecordDict({"arrays": array_record(update.arrays), "metrics": metrics, "config": config})


def unpack_update(client_id: str, content: RecordDict) -> Update:
    """Read a client's answer.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the content is not an update; the server then leaves the client out by name.
    """
    metrics = dict(content.metric_records["metrics"])
    metrics.pop("num-examples", None)
    update = unpack_measurements(client_id, content.config_records["config"])
    update.arrays = read_arrays(content)
    update.metrics = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
    return update


def unpack_measurements(client_id: str, config: Mapping[str, Any]) -> Update:
    """Read what :func:`pack_measurements` packed: an update without arrays and metrics."""
    header = json.loads(str(config["update"]))
    prototypes, signatures, measurements = _unblob(_bytes(config.get("blob", b"")))
    return Update(
        client_id=client_id,
        modalities=tuple(header["modalities"]),
        num_samples=int(header["num_samples"]),
        prototypes=prototypes,
        scores={str(k): float(v) for k, v in header["scores"].items()},
        ratios={str(k): float(v) for k, v in header["ratios"].items()},
        signatures=signatures,
        measurements=measurements,
    )


@dataclass(frozen=True)
class Enrolment:
    """A node's introduction.

    Attributes
    ----------
    info : ClientInfo
        Who it is; no modalities mean all that the model has.
    protocol : int
        Its protocol version.
    app_version : str
        Its app's version; "" for an app that is not ours.
    native : bool
        Whether it understands probes and answers with measurements; others just train.
    """

    info: ClientInfo
    protocol: int
    app_version: str
    native: bool


def pack_enrolment(info: ClientInfo, app_version: str, *, native: bool = True) -> RecordDict:
    """Turn a client's introduction into the content of a message; see :class:`Enrolment`."""
    header = json.dumps(
        {
            "native": native,
            "protocol": PROTOCOL_VERSION,
            "app_version": app_version,
            "client_id": info.client_id,
            "modalities": info.modalities,
            "num_samples": info.num_samples,
            "class_counts": info.class_counts,
        }
    )
    return RecordDict({"config": ConfigRecord({"enrolment": header})})


def unpack_enrolment(content: RecordDict) -> Enrolment:
    """Read an introduction."""
    header = json.loads(str(content.config_records["config"]["enrolment"]))
    info = ClientInfo(
        client_id=str(header["client_id"]),
        modalities=tuple(header["modalities"]),
        num_samples=int(header["num_samples"]),
        class_counts=tuple(int(c) for c in header["class_counts"]),
    )
    return Enrolment(
        info, int(header["protocol"]), str(header["app_version"]), bool(header.get("native", True))
    )


def read_arrays(content: RecordDict) -> Arrays:
    """Return a message's arrays as numpy, an empty dict where it has none."""
    record = content.array_records.get("arrays")
    return {name: value.numpy() for name, value in record.items()} if record else {}


def payload_bytes(content: RecordDict) -> int:
    """Return the bytes of arrays, settings and blobs in a message (without Flower's envelope)."""
    total = sum(len(a.data) for r in content.array_records.values() for a in r.values())
    for record in content.config_records.values():
        total += sum(len(v) for v in record.values() if isinstance(v, str | bytes))
    return total


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, found {type(value).__name__}")
    return value
