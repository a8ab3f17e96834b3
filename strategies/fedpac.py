"""FedPAC: aligned features and a personal mixture of heads (Xu et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from .base import StrategyOptions
from .expected import Shape
from .fedavg import FedAvg
from .messages import Arrays, Assignment, Kind, Orders, Update, owner

#: Weights below this are no use to a head (the official code's rule).
_LEAST_WEIGHT = 1e-3

#: Accelerated projected gradient: its most steps, and the gap to the optimum, relative to the
#: largest eigenvalue, at which it stops.
_STEPS, _GAP = 10_000, 1e-12


class FedPAC(FedAvg):
    """FedAvg's random clients, whose heads are mixed for each of them.

    A client measures, at the encoders it received, h_kc = p_kc mu_kc (share of a class times its
    mean feature) and V_k = (E||z||^2 - sum_c p_kc^2 ||mu_kc||^2) / n_k per modality, and trains
    its head, then its encoders with features pulled to global prototypes. Encoders are averaged by
    samples; per modality block, among the clients that trained it::

        head_i = sum_j alpha_ij head_j
        alpha_i = argmin over the simplex of alpha^T (diag V + G_i) alpha
        G_i[j, l] = sum_c (h_ic - h_jc) . (h_ic - h_lc)

    Weights below 1e-3 become 0; the bias takes the mean of a client's alphas. The global head,
    for tests and for clients that have none of their own, is the sample-weighted mean of the heads
    that came in.

    Clients keep nothing between messages, so their heads live in the server's state until they are
    selected again: the bytes of one head for each client. Besides prototypes both ways, a client
    sends ``shares.<modality>`` (K, D) and ``variance.<modality>`` (1,), 4 bytes a number.

    Takes the parameters of :class:`ModalityStrategy`, but for ``share_prototypes``.

    Source: https://arxiv.org/abs/2306.11867.
    """

    needs_linear_head: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, share_prototypes=True, **options)

    def model_for(self, assignment: Assignment) -> Arrays:
        """Return the model with the client's own head, or the global one the first time."""
        own = self.state.memory.get(assignment.client_id, {})
        return {n: own.get(n, value) for n, value in super().model_for(assignment).items()}

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take the statistics of every modality trained."""
        held = orders.modalities
        shares = {f"shares.{m}": self.state.arrays[f"head.weight.{m}"].shape for m in held}
        return {**shares, **{f"variance.{m}": (1,) for m in held}}

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for the statistics of every modality trained."""
        for modality in update.modalities:
            want = self.state.arrays[f"head.weight.{modality}"].shape
            shares = update.measurements.get(f"shares.{modality}", np.empty(0))
            if shares.shape != want:
                return f"class shares of '{modality}' have shape {shares.shape}, expected {want}"
            variance = update.measurements.get(f"variance.{modality}", np.empty(0))
            if variance.shape != (1,) or variance[0] < 0:
                return f"the answer holds no variance of '{modality}' of 0 or more"
        return None

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average encoders and heads by samples, and mix a head for every client that trained."""
        for client_id, head in self._personal_heads(updates).items():
            self.state.memory.setdefault(client_id, {}).update(head)
        return super().aggregate_fit(server_round, updates)

    def _personal_heads(self, updates: Sequence[Update]) -> dict[str, Arrays]:
        ordered = sorted(updates, key=lambda u: u.client_id)
        mixtures = {m: _mixture(ordered, m) for m in self.state.modalities}
        trained = np.array([[m in u.modalities for m in mixtures] for u in ordered])
        together = np.sum(list(mixtures.values()), axis=0) / trained.sum(axis=1, keepdims=True)
        heads: dict[str, Arrays] = {u.client_id: {} for u in ordered}
        for name, old in self.state.arrays.items():
            there = [i for i, u in enumerate(ordered) if name in u.arrays]
            if not (name.startswith("head.") and there and np.issubdtype(old.dtype, np.floating)):
                continue
            alpha = mixtures.get(owner(name) or "", together)[np.ix_(there, there)]
            stacked = np.stack([ordered[i].arrays[name].ravel() for i in there]).astype(np.float64)
            for i, mixed in zip(there, alpha @ stacked, strict=True):
                heads[ordered[i].client_id][name] = mixed.reshape(old.shape).astype(old.dtype)
        return heads


def _mixture(updates: Sequence[Update], modality: str) -> NDArray[np.float64]:
    """alpha (n, n) of one modality's block, 0 where either client did not train it."""
    alpha = np.zeros((len(updates), len(updates)))
    there = [i for i, u in enumerate(updates) if modality in u.modalities]
    if there:
        measured = [updates[i].measurements for i in there]
        shares = np.stack([m[f"shares.{modality}"].ravel() for m in measured])
        variance = np.concatenate([m[f"variance.{modality}"] for m in measured])
        alpha[np.ix_(there, there)] = mixing_weights(shares, variance)
    return alpha


def mixing_weights(
    shares: NDArray[np.floating], variance: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return alpha (n, n): row i is how client i mixes the n heads; rows sum to 1.

    The optimum, but for weights below 1e-3, which are 0 (in a row that has larger ones).

    Parameters
    ----------
    shares : array (n, F)
        Every client's h, flattened.
    variance : array (n,)
        Every client's V, 0 or more.
    """
    alpha = optimal_weights(shares, variance)
    least = np.minimum(_LEAST_WEIGHT, alpha.max(axis=1, keepdims=True))
    kept = np.where(alpha < least, 0.0, alpha)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def optimal_weights(
    shares: NDArray[np.floating], variance: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the optimum (n, n) of every client's quadratic programme; see mixing_weights.

    Row i minimises ``sum_j alpha_j^2 V_j + ||h_i - sum_j alpha_j h_j||^2`` over the simplex,
    which is the form of G_i there. The quadratic part is the same for every client, so all rows
    take the same steps of accelerated projected gradient, as matrix products.
    """
    n = len(variance)
    # On the simplex only differences between clients count; small numbers lose less.
    centred = shares.astype(np.float64) - shares.mean(axis=0, dtype=np.float64)
    inner = centred @ centred.T
    quadratic = inner + np.diag(variance.astype(np.float64))
    largest = float(np.linalg.eigvalsh(quadratic)[-1])
    alpha = ahead = np.full((n, n), 1 / n)
    pace = np.ones((n, 1))
    for _ in range(_STEPS if largest > 0 else 0):
        new = project_to_simplex(ahead - (ahead @ quadratic - inner) / largest)
        # Momentum that points uphill starts anew, row by row.
        uphill = ((ahead - new) * (new - alpha)).sum(axis=1, keepdims=True) > 0
        faster = np.where(uphill, 1.0, (1 + np.sqrt(1 + 4 * pace**2)) / 2)
        ahead = new + np.where(uphill, 0.0, (pace - 1) / faster) * (new - alpha)
        alpha, pace = new, faster
        slope = alpha @ quadratic - inner
        gap = (alpha * slope).sum(axis=1) - slope.min(axis=1)
        if gap.max() <= _GAP * largest:
            break
    return alpha


def project_to_simplex(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest point of the probability simplex to every row (n, d).

    >>> project_to_simplex(np.array([[0.5, 0.5], [2.0, 0.0], [0.8, 0.4]]))
    array([[0.5, 0.5],
           [1. , 0. ],
           [0.7, 0.3]])
    """
    ordered = -np.sort(-rows, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1
    place = np.arange(1, rows.shape[1] + 1)
    positive = (ordered * place > excess).sum(axis=1)
    shift = excess[np.arange(len(rows)), positive - 1] / positive
    return np.asarray(np.maximum(rows - shift[:, None], 0.0))
