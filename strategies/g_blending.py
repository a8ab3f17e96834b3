"""G-Blending: losses blended by how well each head generalises (Wang et al., CVPR 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .base import StrategyOptions
from .expected import Shape
from .fedavg import FedAvg
from .messages import Arrays, Assignment, ClientInfo, Kind, Orders, Update
from .ranges import Parameter

#: Name of the loss of all modalities together, beside those of the modalities.
JOINT = "joint"

SUPER_EPOCH = Parameter(10, ge=1)


class GBlending(FedAvg):
    """FedAvg that tells clients how to weigh the joint loss and each modality's own.

    Clients train ``w_0 CE_joint + sum_m w_m CE_m`` and measure each head's loss on samples that
    they train on and on some that they hold out, before and after local training. With
    G the fall of the held-out loss and O the growth of (held-out minus training loss), sample-
    weighted means over the clients' answers of ``super_epoch`` rounds::

        w = max(G, 0) / max(O^2, 1e-6), scaled to sum 1; equal at first, or if all are 0

    A head that nobody measured in these rounds keeps its weight, the others share the rest.

    The original trains every modality alone, and all together, to estimate G and O. Solo trainings
    would cost K + 1 times the federation, so here both come from the joint training itself. Its
    published code has no estimator and takes fixed weights: ``weights`` does that.

    A client that lacks modalities trains and measures the heads that it has; it scales their
    weights to sum 1.

    Kept: in ``state.memory[""]`` the weights "weights" (K + 1,) and "sums" (K + 1, 3) of samples, G
    and O since the last estimate, float64, the joint head first, then the model's modalities.
    Traffic: the weights down (K + 1 numbers), 32 bytes per head up, and with every encoder its own
    head of 4 C (D + 1) bytes for C classes and features of width D, both ways.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    weights : mapping, optional
        Fixed weights by "joint" and modality, >= 0; who is not named has 0. Empty: estimate.
    super_epoch : int, default 10
        Rounds between two estimates, >= 1.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If a weight is negative, infinite or of an unknown modality, if all are 0, or if
        ``super_epoch`` is below 1.

    Source: Wang et al., CVPR 2020, https://arxiv.org/abs/1905.12681.
    """

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        super_epoch: int = SUPER_EPOCH.default,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        SUPER_EPOCH.check("super_epoch", super_epoch)
        if fault := weights_fault(weights or {}):
            raise ValueError(fault)
        self.fixed = dict(weights or {})
        self.super_epoch = super_epoch

    def weights(self) -> dict[str, float]:
        """Return the present weights by "joint" and modality; they sum to 1.

        Raises
        ------
        ValueError
            If fixed weights name a modality that the model lacks.
        """
        names = self._names()
        if self.fixed:
            if fault := weights_fault(self.fixed, names[1:]):
                raise ValueError(fault)
            total = sum(self.fixed.values())
            return {n: self.fixed.get(n, 0.0) / total for n in names}
        return dict(zip(names, self._kept()["weights"].tolist(), strict=True))

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw clients as FedAvg does, and note the weights."""
        weights = self.weights()
        return [
            replace(a, reasons={**a.reasons, "weights": weights})
            for a in super().configure_fit(server_round, clients)
        ]

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Add the weights of the heads that the client trains."""
        trained = {JOINT, *assignment.modalities}
        weights = {n: w for n, w in self.weights().items() if n in trained}
        orders = super().orders(server_round, assignment, kind)
        return replace(orders, method_state={"weights": weights})

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take four losses of every head."""
        return dict.fromkeys((JOINT, *orders.modalities), (4,))

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for four losses of every head, unless the client has too few samples to hold out.

        Where samples lack modalities, there may be none with a modality, or at all, on one side.
        """
        if self.fixed or update.num_samples < 2:
            return None
        for name in (JOINT, *update.modalities):
            found = update.measurements.get(name)
            if found is None and update.present:
                continue
            if found is None:
                return f"the answer holds no losses of '{name}'"
            if found.shape != (4,):
                return f"the losses of '{name}' have shape {found.shape}, expected (4,)"
        return None

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average the parts, take the losses, and estimate anew where a super-epoch ends."""
        if not self.fixed:
            kept = self._kept()
            sums = kept["sums"] + self._sums(updates)
            if server_round % self.super_epoch == 0:
                kept = {"weights": _estimate(kept["weights"], sums)}
                sums = np.zeros_like(sums)
            self.state.memory[""] = {**kept, "sums": sums}
        return super().aggregate_fit(server_round, updates)

    def _names(self) -> tuple[str, ...]:
        return (JOINT, *self.state.modalities)

    def _kept(self) -> Arrays:
        count = len(self._names())
        first = {"weights": np.full(count, 1.0 / count), "sums": np.zeros((count, 3))}
        return self.state.memory.get("", first)

    def _sums(self, updates: Sequence[Update]) -> NDArray[np.float64]:
        """Samples, samples times G and samples times O (K + 1, 3) of one round's answers."""
        names = self._names()
        sums = np.zeros((len(names), 3))
        for update in sorted(updates, key=lambda u: u.client_id):  # float sums depend on the order
            for row, name in enumerate(names):
                if name in update.measurements:
                    losses = update.measurements[name].astype(np.float64)
                    gain, overfit = gain_and_overfitting(losses)
                    weight = update.samples(name)  # of the joint loss: all samples
                    sums[row] += weight * np.array([1.0, gain, overfit])
        return sums


def gain_and_overfitting(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Return G and O of one local training.

    Parameters
    ----------
    losses : array (4,)
        Training and held-out loss before, training and held-out loss after.

    >>> gain_and_overfitting(np.array([1.0, 1.5, 0.25, 1.25]))
    (0.25, 0.5)
    """
    train_before, held_before, train_after, held_after = losses.tolist()
    return held_before - held_after, (held_after - train_after) - (held_before - train_before)


def blending_weights(
    gains: NDArray[np.float64], overfitting: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``max(G, 0) / max(O^2, 1e-6)`` scaled to sum 1; equal weights if all are 0.

    >>> blending_weights(np.array([0.4, 0.1, 0.3]), np.array([0.2, 0.1, 0.5])).round(6).tolist()
    [0.471698, 0.471698, 0.056604]
    """
    raw = np.maximum(gains, 0.0) / np.maximum(overfitting**2, 1e-6)
    if not raw.any():
        return np.full(len(raw), 1.0 / len(raw))
    return np.asarray(raw / raw.sum())


def weights_fault(
    weights: Mapping[str, Any], modalities: Sequence[str] | None = None
) -> str | None:
    """Say why these cannot be fixed weights, or None; keys are checked if modalities are given."""
    for name, weight in weights.items():
        if modalities is not None and name not in {JOINT, *modalities}:
            known = ", ".join([JOINT, *modalities])
            return f"weights: '{name}' is no head of this model (it has {known})"
        if not (math.isfinite(weight) and weight >= 0):
            return f"weights: {name} is {weight}, it must be a number >= 0"
    if weights and not any(weights.values()):
        return "weights: all are 0; raise one, or give none to have them estimated"
    return None


def _estimate(old: NDArray[Any], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """New weights (K + 1,) from a super-epoch's sums; heads without samples keep their weight."""
    known = sums[:, 0] > 0
    if not known.any():
        return np.asarray(old)
    means = sums[known, 1:] / sums[known, :1]
    new = np.array(old, np.float64)
    new[known] = blending_weights(means[:, 0], means[:, 1]) * (1.0 - new[~known].sum())
    return new
