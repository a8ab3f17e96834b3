"""How messages travel: dataclasses of :mod:`strategies.messages` as Flower's records, and back.

One message carries one ``ArrayRecord`` whose keys are state-dict names, and one ``ConfigRecord``
with a header as JSON, and with prototypes, signatures and measurements as one safetensors blob.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ..messages import Arrays, Orders, Prototypes, SignatureOrders, Task, Update
from .lazy_array import LazyArray, record_of
from .strict import a_count, finite_metrics, names, numbers, read_json

#: Raised by one whenever a message changes its meaning; both sides must agree.
PROTOCOL_VERSION = 5

#: Message types: a node introduces itself; measures without training; trains.
ENROL, MEASURE, TRAIN = "query.enrol", "query.measure", "train"

# --- arrays --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Codec:
    """How an array becomes bytes and back: the place for compression.

    Attributes
    ----------
    stype : str
        Stands in Flower's ``Array.stype``, by which the receiver finds the codec.
    encode, decode : callable
        From numpy to Flower's ``Array`` of this ``stype``, and back.
    """

    stype: str
    encode: Callable[[NDArray[Any]], Array]
    decode: Callable[[Array], NDArray[Any]]


def _view(value: Array) -> NDArray[Any]:
    """An array's values, of this machine's arrays without a copy and read-only."""
    return value.view if isinstance(value, LazyArray) else value.numpy()


#: Flower's own form: numpy's file format, uncompressed; made only where it is sent elsewhere.
NUMPY = Codec("numpy.ndarray", LazyArray, _view)

#: Codecs by ``stype``: whatever is registered here can be read.
CODECS: dict[str, Codec] = {NUMPY.stype: NUMPY}


class Encoder:
    """Turns arrays into Flower's, each once however often it is sent.

    Parameters
    ----------
    codec : Codec
        What the arrays are written by; the receiver must have it in :data:`CODECS`.
    """

    def __init__(self, codec: Codec = NUMPY) -> None:
        self.codec = codec
        # By id, with the array itself: while it is kept, no other array has its id.
        self._made: dict[int, tuple[NDArray[Any], Array]] = {}

    def __call__(self, arrays: Arrays) -> ArrayRecord:
        """Return arrays as Flower's record, in their order."""
        return record_of({name: self._encode(value) for name, value in arrays.items()})

    def _encode(self, value: NDArray[Any]) -> Array:
        if id(value) not in self._made:
            self._made[id(value)] = value, self.codec.encode(value)
        return self._made[id(value)][1]


def array_record(arrays: Arrays, codec: Codec = NUMPY) -> ArrayRecord:
    """Return arrays as Flower's record, in their order."""
    return Encoder(codec)(arrays)


def decode_arrays(record: ArrayRecord) -> Arrays:
    """Return a record's arrays as numpy; within a machine views, not to be written into.

    Raises
    ------
    ValueError
        If they were written by a codec that is not registered here.
    """
    return {name: _decoded(name, value) for name, value in record.items()}


def _decoded(name: str, value: Array) -> NDArray[Any]:
    found: object = _codec(name, value).decode(value)
    if not isinstance(found, np.ndarray):  # numpy reads archives of several as well
        raise ValueError(f"array '{name}' holds a {type(found).__name__}, expected one array")
    return found


def _codec(name: str, value: Array) -> Codec:
    if value.stype not in CODECS:
        raise ValueError(
            f"array '{name}' is written as '{value.stype}', known here: {', '.join(CODECS)}; "
            "register its codec in strategies.federation.wire.CODECS on both sides"
        )
    return CODECS[value.stype]


def read_arrays(content: RecordDict) -> Arrays:
    """Return a message's arrays as numpy, an empty dict where it has none."""
    record = content.array_records.get("arrays")
    return decode_arrays(record) if record else {}


# --- headers and blobs ---------------------------------------------------------------------


def _packed(
    key: str,
    header: Mapping[str, Any],
    prototypes: Mapping[str, Prototypes],
    signatures: Mapping[str, NDArray[np.float32]] | None = None,
    measurements: Arrays | None = None,
) -> dict[str, str | bytes]:
    """A config's entries: a header as JSON, and everything numeric as a blob."""
    tensors: Arrays = {}
    for modality, p in prototypes.items():
        tensors[f"prototypes/{modality}/means"] = p.means
        tensors[f"prototypes/{modality}/counts"] = p.counts
    tensors |= {f"signatures/{name}": vector for name, vector in (signatures or {}).items()}
    tensors |= {f"measurements/{name}": array for name, array in (measurements or {}).items()}
    entries: dict[str, str | bytes] = {key: json.dumps(header)}
    if tensors:  # flwr's `message_size_mod` stumbles over an empty value
        entries["blob"] = save_safetensors({n: np.ascontiguousarray(v) for n, v in tensors.items()})
    return entries


def _unpacked(
    key: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Prototypes], dict[str, NDArray[np.float32]], Arrays]:
    """What :func:`_packed` packed: header, prototypes, signatures, measurements."""
    blob = config.get("blob", b"")
    if not isinstance(blob, bytes):
        raise TypeError(f"expected bytes, found {type(blob).__name__}")
    tensors = load_safetensors(blob) if blob else {}
    of_prototypes = _below("prototypes/", tensors)
    modalities = dict.fromkeys(name.split("/")[0] for name in of_prototypes)
    prototypes = {
        m: Prototypes(of_prototypes[f"{m}/means"], of_prototypes[f"{m}/counts"]) for m in modalities
    }
    header = read_json(config[key])
    return header, prototypes, _below("signatures/", tensors), _below("measurements/", tensors)


def _below(prefix: str, tensors: Arrays) -> Arrays:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


# --- orders --------------------------------------------------------------------------------


def pack_orders(orders: Orders) -> dict[str, str | bytes]:
    """Return orders as a config's entries."""
    header = {f.name: getattr(orders, f.name) for f in dataclasses.fields(orders)}
    del header["prototypes"]
    if orders.signature is not None:
        header["signature"] = dataclasses.asdict(orders.signature)
    return _packed("orders", header, orders.prototypes)


def unpack_orders(config: Mapping[str, Any]) -> Orders:
    """Read what :func:`pack_orders` packed.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the config holds no orders of this version.
    """
    header, prototypes, _, _ = _unpacked("orders", config)
    header["modalities"] = tuple(header["modalities"])
    if header["signature"] is not None:
        header["signature"] = SignatureOrders(**header["signature"])
    return Orders(prototypes=prototypes, **header)


def pack_task(
    task: Task, settings: Mapping[str, Any] | None = None, encode: Encoder | None = None
) -> RecordDict:
    """Turn a task into the content of a message to a client of our app.

    Parameters
    ----------
    settings : mapping, optional
        What the experiment tells everybody, as JSON values.
    encode : Encoder, optional
        Shared by the messages of a round, so that what many receive is serialised once.
    """
    config = pack_orders(task.orders) | {"settings": json.dumps(dict(settings or {}))}
    arrays = (encode or Encoder())(task.arrays)
    return RecordDict({"arrays": arrays, "config": ConfigRecord(dict(config))})


def unpack_task(content: RecordDict) -> Task:
    """Read a task from the content of a message."""
    return Task(unpack_orders(content.config_records["config"]), read_arrays(content))


def unpack_settings(content: RecordDict) -> dict[str, Any]:
    """Read what the experiment tells everybody, of a task's or an enrolment's message."""
    settings: dict[str, Any] = json.loads(str(content.config_records["config"]["settings"]))
    return settings


# --- answers -------------------------------------------------------------------------------


def pack_measurements(update: Update) -> dict[str, str | bytes]:
    """Return all of an answer but its arrays and metrics, as a header and a blob."""
    header: dict[str, Any] = {
        "modalities": update.modalities,
        "num_samples": update.num_samples,
        "scores": update.scores,
        "ratios": update.ratios,
        "sender": update.sender,
        "held": update.held,
    }
    if update.present:
        header["present"] = update.present
    return _packed("update", header, update.prototypes, update.signatures, update.measurements)


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
    metrics: dict[str, object] = dict(content.metric_records["metrics"])
    metrics.pop("num-examples", None)
    update = unpack_measurements(client_id, content.config_records["config"])
    update.arrays = read_arrays(content)
    update.metrics = finite_metrics(metrics)
    return update


def unpack_measurements(client_id: str, config: Mapping[str, Any]) -> Update:
    """Read what :func:`pack_measurements` packed: an update without arrays and metrics."""
    header, prototypes, signatures, measurements = _unpacked("update", config)
    present = header.get("present", {})
    if not isinstance(present, dict):
        raise ValueError("its sample counts by modality are no mapping")
    return Update(
        client_id=client_id,
        modalities=names(header["modalities"], "its modalities"),
        num_samples=a_count(header["num_samples"], "sample count"),
        prototypes=prototypes,
        scores=numbers(header["scores"], "scores"),
        ratios=numbers(header["ratios"], "imbalance ratios"),
        signatures=signatures,
        measurements=measurements,
        sender=str(header.get("sender", "")),
        held=tuple(header.get("held", ())),
        present={m: a_count(n, f"sample count of '{m}'") for m, n in present.items()},
    )


# --- sizes -------------------------------------------------------------------------------------


def payload_bytes(content: RecordDict) -> int:
    """Return the bytes of arrays, settings and blobs in a message (without Flower's envelope)."""
    arrays = (a for r in content.array_records.values() for a in r.values())
    total = sum(a.size if isinstance(a, LazyArray) else len(a.data) for a in arrays)
    for record in content.config_records.values():
        total += sum(len(v) for v in record.values() if isinstance(v, str | bytes))
    return total
