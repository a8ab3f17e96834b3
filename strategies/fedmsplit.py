"""FedMSplit: blocks averaged by attention between clients (Chen and Zhang, KDD 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .aggregation import aggregate_parts, sample_counts
from .base import StrategyOptions
from .changes import block_of, is_statistic
from .fedavg import FedAvg
from .messages import Arrays, Update
from .ranges import Parameter

GAMMA = Parameter(0.9, ge=0, le=1)


class FedMSplit(FedAvg):
    """FedAvg's random clients; each block of a client leans on clients that learn alike.

    Blocks p are each modality's encoder and the whole head. With u_k a client's change of a block
    and s_kl the number of modalities that k and l both trained::

        A_p = rowsoftmax(cos(u_k, u_l))             over the clients that trained p
        e_kl = sum_p A_p[k, l] / (1 + s_kl)         over the blocks that both trained
        r_p = A_p * e, rows scaled to sum 1
        v_k = gamma w_k + (1 - gamma) sum_l r_kl w_l
        w = sum_k q_k v_k,  q_k = n_k / sum n

    A client that lacks a modality is not in that block's graph. In the head's graph the columns
    that a client did not train count as unchanged; each array of the head is averaged over the
    clients that sent it, with the rows of r restricted to them. Integers take the maximum.

    The paper keeps a model per client and leaves the role of gamma open: here gamma is the own
    share, and everyone starts from the weighted mean of what the clients' models would be. The
    paper compares weights; these share a start, so what tells clients apart is their change.

    Nothing is kept between rounds and nothing travels besides FedAvg's parts.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    gamma : float, default 0.9
        A client's own share in its block, in [0, 1]; 1 is FedAvg.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If ``gamma`` is out of range.

    Source: https://doi.org/10.1145/3534678.3539384.
    """

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        gamma: float = GAMMA.default,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        GAMMA.check("gamma", gamma)
        self.gamma = gamma

    def aggregate(self, updates: Sequence[Update]) -> Arrays:
        """Return the new global model: block by block, the mean of the clients' mixtures."""
        trained = sorted((u for u in updates if u.num_samples > 0), key=lambda u: u.client_id)
        rows = attention(self.state.arrays, trained)
        place = {u.client_id: i for i, u in enumerate(trained)}

        def _weigh(name: str, trainers: Sequence[Update]) -> list[float]:
            there = [place[u.client_id] for u in trainers]
            mixed = rows[block_of(name)][np.ix_(there, there)]
            samples = np.array(sample_counts(name, trainers))
            # Sample counts, not shares: at gamma 1 they are FedAvg's weights to the last bit.
            others = samples @ _rows_to_one(mixed)
            weights = self.gamma * samples + (1 - self.gamma) * others
            return [float(w) for w in weights]

        return aggregate_parts(self.state.arrays, trained, self.head_columns, _weigh)


def attention(received: Arrays, updates: Sequence[Update]) -> dict[str, NDArray[np.float64]]:
    """Return r (n, n) by block: how much each client leans on each, 0 where either is missing.

    Parameters
    ----------
    received : dict
        The model that the n clients were sent.
    updates : sequence of Update
        Their answers, in the order of the rows. Rows of clients that trained the block sum to 1.
    """
    blocks = dict.fromkeys(map(block_of, received))
    scores = {b: similarity(received, updates, b) for b in blocks}
    known = sorted({m for u in updates for m in u.modalities})
    trains = np.array([[m in u.modalities for m in known] for u in updates], np.float64)
    edges = np.sum(list(scores.values()), axis=0) / (1 + trains @ trains.T)
    return {block: _rows_to_one(a * edges) for block, a in scores.items()}


def similarity(received: Arrays, updates: Sequence[Update], block: str) -> NDArray[np.float64]:
    """Return A (n, n) of one block: row-softmax of the cosines of changes, among its trainers."""
    inner = np.zeros((len(updates), len(updates)))
    trained = np.zeros(len(updates), bool)
    for name, old in received.items():
        if block_of(name) != block:
            continue
        there = np.array([i for i, u in enumerate(updates) if name in u.arrays], np.int64)
        trained[there] = True
        # What follows the data, not a gradient, has no say in who is alike.
        if len(there) and np.issubdtype(old.dtype, np.floating) and not is_statistic(name):
            # One array at a time: never all clients' whole models in float64.
            change = np.stack([_change(updates[i].arrays[name], old) for i in there])
            inner[np.ix_(there, there)] += change @ change.T
    norms = np.sqrt(np.diag(inner))
    scale = np.outer(norms, norms)
    cosines = np.divide(inner, scale, out=np.zeros_like(inner), where=scale > 0)
    np.fill_diagonal(cosines, 1.0)  # also of who changed nothing
    return _rows_to_one(np.exp(cosines) * np.outer(trained, trained))


def _change(new: NDArray[Any], old: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(new.astype(np.float64) - old).ravel()


def _rows_to_one(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to sum 1, but rows of zeros."""
    totals = values.sum(axis=1, keepdims=True)
    return np.asarray(values / np.where(totals > 0, totals, 1.0))
