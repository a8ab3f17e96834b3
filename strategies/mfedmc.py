"""MFedMC: modalities and clients are selected jointly (Yuan et al.)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .base import StrategyOptions
from .evaluated import EvaluationModel
from .expected import Shape
from .messages import (
    Arrays,
    Assignment,
    ClientInfo,
    Kind,
    Orders,
    Update,
    copied,
    owner,
    select_parts,
)
from .ranges import Parameter
from .selection.measuring import MEASURE_PER_ROUND, MeasuringStrategy

Prefer = Literal["high", "low"]

GAMMA = Parameter(1, ge=1)
DELTA = Parameter(0.0, ge=0, le=1)
PREFER: Parameter[Prefer] = Parameter("high")
CONTRIBUTION_WEIGHT = Parameter(1 / 3, ge=0, le=1000)
SIZE_WEIGHT = Parameter(1 / 3, ge=0, le=1000)
RECENCY_WEIGHT = Parameter(1 / 3, ge=0, le=1000)

#: What a client measures of each modality, ``<what>.<modality>`` (1,) in an answer.
MEASURED = ("contribution", "loss")

#: Before the names of the arrays of a client's own head.
OWN = "own."


class MFedMC(MeasuringStrategy):
    """Clients by their loss, and of each the modalities that matter most.

    Of client k's modalities the ``gamma`` of largest priority are trained::

        P_km = a_s phi~_km + a_c (1 - size~_m) + a_r (t - last_km) / (t + 1)

    phi is the modality's contribution to the client's predictions (Shapley value), size what of it
    travels, last the round in which k trained m (-1 before), t this round, both from 0; ~ scales to
    [0, 1] over the modalities that k holds, and equal values to 0. Equal priorities go by the order
    of the modalities. Clients whose loss, the mean over all that they hold, is largest
    (``prefer="high"``) or smallest train; equal losses go by a draw. Averages are weighted by
    samples, of each part over its trainers.

    The original has all clients train all they hold and then drops what is not selected. Here a
    process ends with its answer, so selection precedes training, from each client's last known phi
    and losses: measured once when it enrols, and afresh of whatever it trains, so only what is
    selected trains and travels. What nobody trains keeps its old figures; with ``prefer="low"`` a
    few clients may therefore train for ever.

    Kept: three numbers by client and modality, in ``state.signatures``. Traffic: the whole model
    once to every client, then ``gamma`` encoders and their columns of the head each way, and 8
    bytes up for each of them.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    gamma : int, default 1
        Modalities that a client trains, >= 1; who holds fewer trains all.
    delta : float, default 0
        Share of the connected clients that train, in (0, 1], rounded, at least one: in place of
        ``clients_per_round``. 0: as many as that says.
    prefer : {"high", "low"}, default "high"
        Clients of the largest loss, or of the smallest (the authors' two versions).
    contribution_weight, size_weight, recency_weight : float, default 1/3
        a_s, a_c, a_r, 0 to 1000, not all 0.
    measure_per_round
        See :class:`strategies.selection.measuring.MeasuringStrategy`.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Source: https://arxiv.org/abs/2401.16685; https://github.com/liangqiyuan/mmFedMC.
    """

    needs_linear_head: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        gamma: int = GAMMA.default,
        delta: float = DELTA.default,
        prefer: Prefer = PREFER.default,
        contribution_weight: float = CONTRIBUTION_WEIGHT.default,
        size_weight: float = SIZE_WEIGHT.default,
        recency_weight: float = RECENCY_WEIGHT.default,
        measure_per_round: int = MEASURE_PER_ROUND.default,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, measure_per_round=measure_per_round, **options)
        GAMMA.check("gamma", gamma)
        DELTA.check("delta", delta)
        CONTRIBUTION_WEIGHT.check("contribution_weight", contribution_weight)
        SIZE_WEIGHT.check("size_weight", size_weight)
        RECENCY_WEIGHT.check("recency_weight", recency_weight)
        self.weights = (contribution_weight, size_weight, recency_weight)
        if fault := weights_fault(*self.weights):
            raise ValueError(fault)
        self.gamma, self.delta, self.prefer = gamma, delta, prefer

    def resolve_clients_per_round(self, available: int) -> int:
        """Return delta's share of those available, or as many as ``clients_per_round`` says."""
        if self.delta > 0:
            return max(1, round(self.delta * available))
        return super().resolve_clients_per_round(available)

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Take clients by their loss, and of each the modalities of largest priority."""
        known = self.measured(clients)
        losses = np.array([self._known(c, "loss").mean() for c in known])
        order = self.draw("select", server_round).permutation(len(known))
        rank = -losses[order] if self.prefer == "high" else losses[order]
        chosen = order[np.argsort(rank, kind="stable")][: self.number_of_picks(clients, known)]
        return [self._assign(server_round, known[i], float(losses[i])) for i in chosen]

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take one contribution and one loss of every modality."""
        return {f"{what}.{m}": (1,) for what in MEASURED for m in orders.modalities}

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for a contribution and a loss of every modality."""
        for name in (f"{what}.{m}" for m in update.modalities for what in MEASURED):
            found = update.measurements.get(name, np.empty(0))
            if found.shape != (1,) or found[0] < 0:
                what, _, modality = name.partition(".")
                return f"the answer holds no {what} of '{modality}' of 0 or more"
        return None

    def aggregate_probe(self, server_round: int, updates: Sequence[Update]) -> None:
        """Take contributions and losses of clients that are new."""
        super().aggregate_probe(server_round, updates)
        for update in updates:
            zeros = np.zeros(len(self.state.modalities), np.float32)
            self._keep(update, dict.fromkeys((*MEASURED, "trained"), zeros))

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average the parts, and take contributions, losses and the round of what was trained."""
        arrays = super().aggregate_fit(server_round, updates)
        for update in updates:
            # One that was forgotten meanwhile is measured whole before it is selected again.
            if known := self.state.signatures[update.client_id]:
                self._keep(update, known, server_round)
        return arrays

    def _keep(
        self, update: Update, known: Mapping[str, NDArray[np.float32]], trained: int = 0
    ) -> None:
        """Keep what an answer measured, over what was known of the same client."""
        new = {what: values.copy() for what, values in known.items()}
        for m in update.modalities:
            place = self.state.modalities.index(m)
            for what in MEASURED:
                new[what][place] = update.measurements[f"{what}.{m}"][0]
            new["trained"][place] = trained
        self.state.signatures[update.client_id] = new

    def _known(self, client: ClientInfo, what: str) -> NDArray[np.float64]:
        """Return what is known of a client's modalities (a,), in the client's order."""
        places = [self.state.modalities.index(m) for m in client.modalities]
        values = self.state.signatures[client.client_id][what][places]
        return values.astype(np.float64)

    def _assign(self, server_round: int, client: ClientInfo, loss: float) -> Assignment:
        held = client.modalities
        contribution, trained = self._known(client, "contribution"), self._known(client, "trained")
        sizes = [self._size(m) for m in held]
        priority = priorities(contribution, sizes, trained, server_round, self.weights)
        best = np.argsort(-priority, kind="stable")[: self.gamma]
        chosen = tuple(m for place, m in enumerate(held) if place in best)
        reasons = {
            "role": "multi" if len(chosen) == len(held) else "uni",
            "loss": loss,
            "losses": _by_name(held, self._known(client, "loss")),
            "priority": _by_name(held, priority),
            "contribution": _by_name(held, contribution),
            "trained": {m: int(r) for m, r in zip(held, trained, strict=True)},
        }
        return Assignment(client.client_id, chosen, reasons)

    def _size(self, modality: str) -> int:
        """Return how many numbers of a modality a client sends back."""
        arrays = self.state.arrays.items()
        return sum(v.size for n, v in arrays if owner(n) == modality and n not in self.frozen)


class PersonalMFedMC(MFedMC):
    """MFedMC whose accuracy is that of each client's own head on the global encoders.

    Before it trains, a client fits the head's columns that it was sent on the features of the
    received encoders, which stand still, and sends these columns besides; the training itself is
    that of :class:`MFedMC` to the last bit. So a client's own head is as old, column by column, as
    its last visit, and asks for no visit of its own; the rest of it are the global head's columns.
    The accuracy is the mean over all clients known, weighted by their samples; who lacks a modality
    is tested without it.

    The original fits a random forest on the predictions of all the modalities that a client holds,
    every round and at every client.

    Kept: a head for each client, in ``state.memory``. Traffic: the head's columns a second time up.

    Takes the parameters of :class:`MFedMC`.
    """

    evaluated: ClassVar[str] = "the clients' own heads on the global encoders, weighted mean"

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take the client's own columns besides, of training."""
        expected: dict[str, Shape] = dict(super().expected_measurements(orders))
        if orders.kind == "train":
            expected |= {OWN + n: v.shape for n, v in self._head(orders.modalities).items()}
        return expected

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for the client's own columns."""
        wanted = self._head(update.modalities) if kind == "train" else {}
        if missing := [n for n in wanted if OWN + n not in update.measurements]:
            return f"the answer holds no '{missing[0]}' of the client's own"
        return super().check_update(update, kind)

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Keep the columns that clients fitted."""
        for update in updates:
            own = {n: update.measurements[OWN + n] for n in self._head(update.modalities)}
            self.state.memory.setdefault(update.client_id, {}).update(copied(own))
        return super().aggregate_fit(server_round, updates)

    def models(self) -> list[EvaluationModel]:
        """Return every client's model; those that have not trained share the global one."""
        state, known = self.state, self.state.global_prototypes()
        made = []
        for client_id, info in sorted(state.clients.items()):
            own = state.memory.get(client_id, {})
            arrays = select_parts(state.arrays, info.modalities)
            made.append(
                EvaluationModel(
                    client_id if own else f"global {'+'.join(info.modalities)}",
                    state.round,
                    float(info.num_samples),
                    {name: own.get(name, value) for name, value in arrays.items()},
                    {m: p for m, p in known.items() if m in info.modalities},
                )
            )
        return made or super().models()

    def _head(self, modalities: Sequence[str]) -> Arrays:
        arrays = select_parts(self.state.arrays, modalities)
        return {name: value for name, value in arrays.items() if name.startswith("head.")}


def priorities(
    contributions: ArrayLike,
    sizes: ArrayLike,
    trained: ArrayLike,
    server_round: int,
    weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
) -> NDArray[np.float64]:
    """Return the priorities P (a,) of the a modalities that a client holds.

    Parameters
    ----------
    contributions, sizes : array (a,)
        phi, and how much of each travels.
    trained : array (a,)
        The round, from 1, in which the client trained each; 0 where it never did.
    server_round : int
        This round, from 1: (t - last) / (t + 1) is (round - trained) / round.
    weights : tuple
        a_s, a_c, a_r.

    >>> priorities([3, 1, 2], [100, 50, 200], [5, 0, 3], 6).round(6).tolist()
    [0.611111, 0.666667, 0.333333]
    """
    recency = (server_round - np.asarray(trained, np.float64)) / server_round
    a_s, a_c, a_r = weights
    found = a_s * scaled(contributions) + a_c * (1 - scaled(sizes)) + a_r * recency
    return np.asarray(found)


def scaled(values: ArrayLike) -> NDArray[np.float64]:
    """Scale values (a,) to [0, 1] by the smallest and the largest; equal values to 0.

    >>> scaled([3, 1, 2]).tolist(), scaled([5, 5]).tolist()
    ([1.0, 0.0, 0.5], [0.0, 0.0])
    """
    given = np.asarray(values, np.float64)
    span = given.max() - given.min()
    return np.asarray((given - given.min()) / (span if span > 0 else 1.0))


def weights_fault(*weights: float) -> str | None:
    """Say why these cannot be the weights of the priority, or None."""
    if any(weights):
        return None
    return "contribution_weight, size_weight and recency_weight are all 0: raise one"


def _by_name(modalities: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(modalities, values.tolist(), strict=True))
