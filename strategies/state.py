"""Everything the server must remember, in one object that can be saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from safetensors.numpy import save_file as save_safetensors_file

from . import checksum
from .messages import Arrays, ClientInfo, Prototypes, Update, copied, modalities_of
from .ratios import bounded, combined, weakest

_FORMAT = 4
_SEALED = 4  # from this format on there is a checksum
_READ = (2, 3, 4)  # 2 has an array for each client where 3 has one of all clients' rows
_Value = TypeVar("_Value")


@dataclass
class ServerState:
    """The server's memory after a round; the same class serves every method.

    Attributes
    ----------
    round : int
        The last complete round; 0 before the first.
    arrays : dict
        The global model by state-dict name.
    clients : dict
        Every client known, by client id.
    prototypes : dict
        Latest local prototypes, by client id and modality.
    scores : dict
        Latest scores, by client id and modality.
    ratios : dict
        Latest imbalance ratios, by client id and modality.
    signatures : dict
        Latest selection vectors, by client id and name.
    memory : dict
        Arrays that a particular method keeps besides, by client id ("" for none) and name.
    norms : dict
        Typical norms of the last rounds' updates, by unit: see
        :mod:`strategies.federation.outliers`.
    measured : dict
        What this round's probes measured besides, by client id and name; of no use to a later
        round, and not saved.
    bindings : dict
        The key that each client id belongs to, by client id, where nodes are authenticated.
    """

    round: int = 0
    arrays: Arrays = field(default_factory=dict)
    clients: dict[str, ClientInfo] = field(default_factory=dict)
    prototypes: dict[str, dict[str, Prototypes]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, dict[str, float]] = field(default_factory=dict)
    signatures: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    memory: dict[str, Arrays] = field(default_factory=dict)
    measured: dict[str, Arrays] = field(default_factory=dict)
    norms: dict[str, list[float]] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's modalities, in the model's order."""
        return modalities_of(self.arrays)

    def absorb(self, update: Update) -> None:
        """Take over copies of what an update says about its client (not its arrays)."""
        client = update.client_id
        prototypes = {m: p.copy() for m, p in update.prototypes.items()}
        self.prototypes.setdefault(client, {}).update(prototypes)
        self.scores.setdefault(client, {}).update(update.scores)
        ratios = {m: bounded(r) for m, r in update.ratios.items()}
        self.ratios.setdefault(client, {}).update(ratios)
        self.signatures.setdefault(client, {}).update(copied(update.signatures))

    def forget(self, client_id: str, *, measured_only: bool = False) -> None:
        """Drop what is remembered of a client: it came back with other data than it had.

        Parameters
        ----------
        client_id : str
        measured_only : bool, default False
            Keep what the method remembers besides measurements, such as the client's own head: it
            has the modalities that it had.
        """
        kept: list[dict[str, Any]] = [self.prototypes, self.scores, self.ratios]
        kept += [self.signatures, self.measured]
        if not measured_only:
            kept.append(self.memory)
        for values in kept:
            values.pop(client_id, None)

    def global_prototypes(self) -> dict[str, Prototypes]:
        """Count-weighted mean of the local prototypes, per modality and class (Eq. 15).

        A class that nobody has keeps count 0: it is absent, never a zero vector.
        """
        totals: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        for client in sorted(self.prototypes):  # a fixed order: float sums depend on it
            for modality, p in self.prototypes[client].items():
                weighted = p.means.astype(np.float64) * p.counts[:, None]
                weighted[p.counts == 0] = 0.0
                if modality in totals:
                    totals[modality][0].__iadd__(weighted)
                    totals[modality][1].__iadd__(p.counts)
                else:
                    totals[modality] = (weighted, p.counts.copy())
        return {
            m: Prototypes((s / np.maximum(n, 1)[:, None]).astype(np.float32), n)
            for m, (s, n) in totals.items()
        }

    def global_ratios(self, factor: float = 10.0, robust: bool = False) -> dict[str, float]:
        """Sample-weighted mean of the clients' latest imbalance ratios (Eq. 18).

        What stands out by more than ``factor`` is left out; with ``robust`` it is the median: see
        :func:`strategies.ratios.combined`.
        """
        found: dict[str, tuple[list[float], list[float]]] = {}
        for client in sorted(self.ratios):
            weight = self.clients[client].num_samples if client in self.clients else 1
            for modality, ratio in self.ratios[client].items():
                ratios, weights = found.setdefault(modality, ([], []))
                ratios.append(ratio)
                weights.append(weight)
        ordered = [m for m in self.modalities if m in found] or sorted(found)
        means = {m: combined(*found[m], factor, robust) for m in ordered}
        return {m: mean for m, mean in means.items() if mean is not None}

    def weak_modality(self) -> str | None:
        """Return the modality with the largest global ratio (equal: the first), None if unknown."""
        return weakest(self.global_ratios())

    # --- saving ------------------------------------------------------------------------------

    def snapshot(self) -> ServerState:
        """Return the state as it is now, which later rounds of this one do not change.

        Containers are copied, arrays are shared: nothing writes into them.
        """
        return ServerState(
            self.round,
            dict(self.arrays),
            dict(self.clients),
            _copied(self.prototypes),
            _copied(self.scores),
            _copied(self.ratios),
            _copied(self.signatures),
            _copied(self.memory),
            _copied(self.measured),
            {unit: list(norms) for unit, norms in self.norms.items()},
            dict(self.bindings),
        )

    def to_bytes(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the whole state as safetensors, nothing pickled; ``measured`` is left out.

        Parameters
        ----------
        extra : mapping, optional
            JSON values to keep beside the state, read back by :func:`read_extra`.
        """
        return checksum.sealed(save_safetensors(*self._saved(extra)))

    def save(self, file: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write :meth:`to_bytes` to a file, without a copy of the arrays in memory.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        tensors, header = self._saved(extra)
        try:
            save_safetensors_file(tensors, file, header)
        except SafetensorError as error:  # what the disk said, as a text
            raise OSError(str(error)) from None
        checksum.seal(file)

    def _saved(self, extra: Mapping[str, Any] | None) -> tuple[Arrays, dict[str, str]]:
        """Return tensors by name, and the header beside them."""
        tensors: Arrays = {}
        for name, array in self.arrays.items():
            tensors[json.dumps(["arrays", name])] = array
        for client, kept in self.memory.items():  # may be models: too large for a copy of all
            for name, array in kept.items():
                tensors[json.dumps(["memory", client, name])] = array
        stacks, rows = _stack(self._small())
        header = {
            "format": _FORMAT,
            "checksum": checksum.UNKNOWN,
            "round": self.round,
            "arrays": list(self.arrays),  # the order is part of the model
            "scores": self.scores,
            "ratios": self.ratios,
            "norms": self.norms,
            "clients": {
                c: [i.modalities, i.num_samples, i.class_counts] for c, i in self.clients.items()
            },
            "bindings": self.bindings,
            "rows": rows,
            "extra": dict(extra or {}),
        }
        contiguous = {
            k: np.ascontiguousarray(v).reshape(v.shape)
            for k, v in sorted((tensors | stacks).items())
        }
        return contiguous, {"state": json.dumps(header, sort_keys=True)}

    def _small(self) -> Iterator[tuple[str, str, str, NDArray[Any]]]:
        """Kind, client, name and array of what every client has."""
        for client, protos in sorted(self.prototypes.items()):
            for modality, p in sorted(protos.items()):
                yield "means", client, modality, p.means
                yield "counts", client, modality, p.counts
        for client, vectors in sorted(self.signatures.items()):
            for name, vector in sorted(vectors.items()):
                yield "signatures", client, name, vector

    @classmethod
    def from_bytes(cls, data: bytes) -> ServerState:
        """Read a state back.

        Raises
        ------
        ValueError
            If the bytes are not a complete state of this format, as it was written.
        """
        header = _read_header(data)
        if header["format"] >= _SEALED:
            checksum.check(data)
        state = cls(int(header["round"]), scores=header["scores"], ratios=header["ratios"])
        state.norms = header.get("norms", {})
        for client, (modalities, samples, counts) in header["clients"].items():
            state.clients[client] = ClientInfo(client, tuple(modalities), samples, tuple(counts))
        state.bindings = {str(c): str(key) for c, key in header.get("bindings", {}).items()}
        try:
            tensors = load_safetensors(data)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"not a complete server state: {error}") from error
        loaded = _unstacked(tensors, header.get("rows", {}))
        state.arrays = {name: loaded["arrays", name] for name in header["arrays"]}
        for (kind, name, *rest), value in sorted(loaded.items()):
            if kind == "memory":
                state.memory.setdefault(name, {})[rest[0]] = value
            elif kind == "means":
                counts = loaded["counts", name, rest[0]]
                state.prototypes.setdefault(name, {})[rest[0]] = Prototypes(value, counts)
            elif kind == "signatures":
                state.signatures.setdefault(name, {})[rest[0]] = value
        return state


def read_extra(data: bytes) -> dict[str, Any]:
    """Return the JSON values that :meth:`ServerState.to_bytes` was given beside the state."""
    extra: dict[str, Any] = _read_header(data)["extra"]
    return extra


def _copied(kept: Mapping[str, dict[str, _Value]]) -> dict[str, dict[str, _Value]]:
    return {client: dict(values) for client, values in kept.items()}


def _stack(
    small: Iterable[tuple[str, str, str, NDArray[Any]]],
) -> tuple[Arrays, dict[str, list[str]]]:
    """Stack arrays of one kind, name, type and shape: ten thousand tensors take long to write.

    Returns
    -------
    stacks : dict
        By kind, name and a number.
    rows : dict
        Whose the rows of each stack are.
    """
    groups: dict[tuple[Any, ...], list[tuple[str, NDArray[Any]]]] = {}
    for kind, client, name, array in small:
        group = kind, name, array.dtype.str, array.shape
        groups.setdefault(group, []).append((client, array))
    named = {
        json.dumps([kind, name, number]): members
        for number, ((kind, name, *_), members) in enumerate(groups.items())
    }
    stacks = {key: np.stack([array for _, array in members]) for key, members in named.items()}
    return stacks, {key: [client for client, _ in members] for key, members in named.items()}


def _unstacked(
    tensors: Arrays, rows: Mapping[str, Sequence[str]]
) -> dict[tuple[str, ...], NDArray[Any]]:
    """Return arrays by kind and names, the client's before its array's; they may be views."""
    found: dict[tuple[str, ...], NDArray[Any]] = {}
    for key, value in tensors.items():
        kind, *names = json.loads(key)
        if key in rows:
            clients = zip(rows[key], value, strict=True)
            found |= {(kind, client, names[0]): row for client, row in clients}
        else:
            found[kind, *names] = value
    return found


def _read_header(data: bytes) -> dict[str, Any]:
    """Read the JSON header out of safetensors' own: 8 bytes of length, then JSON."""
    try:
        length = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(
            json.loads(data[8 : 8 + length])["__metadata__"]["state"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a server state: {error}") from error
    if header.get("format") not in _READ:
        raise ValueError(f"server state of format {header.get('format')}, expected {_FORMAT}")
    return header
