"""FedNH: a fixed uniform head that follows class prototypes (Dai et al., AAAI 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from .base import StrategyOptions
from .expected import Shape
from .fedavg import FedAvg
from .messages import Arrays, Kind, Orders, Update
from .ranges import Parameter

#: Beginning of the names of the head's class directions, one block of columns per modality.
_WEIGHT = "head.weight."

#: Anything smaller has no direction.
_TINY = 1e-12

RHO = Parameter(0.9, ge=0, le=1)


class FedNH(FedAvg):
    """FedAvg's random clients; the head's class directions are moved by the server alone.

    The head is a cosine classifier whose rows W_c start orthonormal and are frozen on clients.
    A client answers, besides what it trained, with p_kc, the unit vector of its mean normalised
    feature of each class, and its class counts n_kc. Per class and modality block::

        P_c = sum_k n_kc p_kc / sum_k n_kc          over the clients that trained the block
        P_c <- P_c / ||P_c||                        over all blocks together
        W_c <- unit(rho W_c + (1 - rho) P_c)

    A block that no client trained with samples of the class is W's own; a class that nobody has
    keeps W_c. Everything else is averaged by samples (the official code: equally).

    The directions are part of ``state.arrays``; nothing else is kept. They travel to the clients
    only. Besides FedAvg's prototypes, a client sends ``directions.<modality>`` (K, D), 4 bytes a
    number, and ``counts`` (K,), 8 bytes a number.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    rho : float, default 0.9
        How much of the directions stays each round, in [0, 1]; 1 never moves them.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If ``rho`` is out of range.

    Source: https://arxiv.org/abs/2212.02758.
    """

    needs_linear_head: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        rho: float = RHO.default,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        RHO.check("rho", rho)
        self.rho = rho

    def expected_arrays(self, modalities: Sequence[str]) -> Arrays:
        """Ask for all but the directions."""
        arrays = super().expected_arrays(modalities)
        return {name: value for name, value in arrays.items() if not name.startswith(_WEIGHT)}

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take class counts, and directions of every modality trained."""
        shapes = {m: self.state.arrays[_WEIGHT + m].shape for m in orders.modalities}
        classes = next(iter(shapes.values()))[:1]
        own = {f"counts.{m}": classes for m in orders.modalities}  # where samples lack it
        return {"counts": classes, **own, **{f"directions.{m}": s for m, s in shapes.items()}}

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for class counts, and for directions of every modality trained."""
        for modality in update.modalities:
            want = self.state.arrays[_WEIGHT + modality].shape
            found = update.measurements.get(f"directions.{modality}")
            if found is None or found.shape != want:
                shape = None if found is None else found.shape
                return f"class directions of '{modality}' have shape {shape}, expected {want}"
            counts = update.measurements.get("counts")
            if counts is None or counts.shape != want[:1] or (counts < 0).any():
                return f"class counts are not {want[0]} numbers of 0 or more"
            if counts.sum() > update.num_samples:
                return f"class counts sum to {counts.sum():g}, of {update.num_samples} samples"
            own = _counts(update, modality)
            if own.shape != want[:1] or (own < 0).any() or (own > counts).any():
                return f"class counts of '{modality}' are not between 0 and those of all samples"
        return None

    def aggregate(self, updates: Sequence[Update]) -> Arrays:
        """Average the bodies and move the directions towards the clients'."""
        return super().aggregate(updates) | self._directions(updates)

    def _directions(self, updates: Sequence[Update]) -> Arrays:
        ordered = sorted(updates, key=lambda u: u.client_id)
        names = [n for n in self.state.arrays if n.startswith(_WEIGHT)]
        old = {n: self.state.arrays[n].astype(np.float64) for n in names}
        found, seen = {}, np.zeros(len(next(iter(old.values()))), bool)
        for name in names:
            modality = name.removeprefix(_WEIGHT)
            found[name], here = _class_means(
                [u for u in ordered if modality in u.modalities], modality, old[name]
            )
            seen |= here
        towards = _unit(np.concatenate(list(found.values()), axis=1))
        whole = np.concatenate(list(old.values()), axis=1)
        moved = np.where(seen[:, None], _unit(self.rho * whole + (1 - self.rho) * towards), whole)
        ends = np.cumsum([w.shape[1] for w in old.values()])[:-1]
        blocks = np.split(moved, ends, axis=1)
        return {n: b.astype(self.state.arrays[n].dtype) for n, b in zip(names, blocks, strict=True)}


def _class_means(
    trainers: Sequence[Update], modality: str, otherwise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Count-weighted mean directions (K, D) of one block, and which classes (K,) anyone has."""
    total, count = np.zeros_like(otherwise), np.zeros(len(otherwise))
    for update in trainers:
        counts = _counts(update, modality)
        total += counts[:, None] * update.measurements[f"directions.{modality}"]
        count += counts
    seen = count > 0
    means = total / np.where(seen, count, 1.0)[:, None]
    return np.where(seen[:, None], means, otherwise), seen


def _counts(update: Update, modality: str) -> NDArray[np.float64]:
    """Samples per class (K,) that have a modality."""
    found = update.measurements
    return found.get(f"counts.{modality}", found["counts"]).astype(np.float64)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, _TINY))
