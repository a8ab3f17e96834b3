"""BMSFed: balanced modality selection (Fan et al., ECCV 2024, https://arxiv.org/abs/2401.00403)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

import numpy as np

from .aggregation import imbalance_ratios
from .base import StrategyOptions
from .messages import Arrays, Assignment, ClientInfo, Kind, Orders, Update
from .ranges import Parameter
from .selection.measuring import MEASURE_PER_ROUND
from .selection.signatures import (
    COVER_SAMPLE,
    GRADIENT,
    PROBE_BATCHES,
    SKETCH_DIM,
    Gradient,
    SignatureStrategy,
)
from .selection.submodular import Pick, balanced_selection

PickRule = Literal["pair", "single"]
UniCover = Literal["shared", "uni"]
UniRatio = Literal["keep", "refresh"]
PrototypeScope = Literal["all", "selected"]

THRESHOLD = Parameter(1.2, ge=0, le=100)
PICK: Parameter[PickRule] = Parameter("pair")
UNI_COVER: Parameter[UniCover] = Parameter("shared")
UNI_RATIO: Parameter[UniRatio] = Parameter("keep")
PROTOTYPE_SCOPE: Parameter[PrototypeScope] = Parameter("all")


class BMSFedOptions(StrategyOptions, total=False):
    """Keywords that strategies built on :class:`BMSFed` hand on to it."""

    threshold: float
    gradient: Gradient
    sketch_dim: int
    probe_batches: int
    pick: PickRule
    uni_cover: UniCover
    uni_ratio: UniRatio
    prototype_scope: PrototypeScope
    cover_sample: int
    measure_per_round: int
    send_prototypes: bool


class BMSFed(SignatureStrategy):
    """Select modalities of clients so that no strong modality starves the weak ones.

    Two facility-location functions are minimised greedily side by side (Eqs. 11-13): one over the
    clients' multi-modal gradients, one over the gradients that enhance the globally weak modality.
    Where they want the same client, it trains all it holds; where not, the second one's choice
    trains its weak modality alone if its imbalance ratio exceeds ``threshold``.

    Parameters
    ----------
    clients_per_round : int or float, optional
        Clients, not picks: see :class:`ModalityStrategy`.
    threshold : float, default 1.2
        χ of Eq. 13, a ratio >= 0; the paper uses 1.2 to 2.5.
    gradient, sketch_dim, probe_batches, cover_sample, measure_per_round
        See :class:`strategies.signatures.SignatureStrategy`.
    pick : {"pair", "single"}, default "pair"
        Clients added per greedy step; ``"single"`` is the published code's rule.
    uni_cover : {"shared", "uni"}, default "shared"
        ``"shared"``: multi-modal picks cover the second function too (Eq. 11). ``"uni"``: only
        uni-modal picks do, and only uni-modal training refreshes its rows (published code).
    uni_ratio : {"keep", "refresh"}, default "keep"
        What becomes of the ratio of a client that trained one modality alone and so has nothing
        to compare it with: it stays, or is taken anew from the client's latest score of each
        modality (nearest to the published code, whose clients all hold the whole model).
    prototype_scope : {"all", "selected"}, default "all"
        Global prototypes from all clients' latest, or from this round's clients only.
    send_prototypes : bool, default True
        Send global prototypes with the tasks; without, clients enhance by their own.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    Four clients whose multi-modal gradients fall into two groups, {0, 1} and {2, 3}, while those
    that enhance the weak modality group them differently, {0, 2} and {1, 3}:

    >>> import numpy as np
    >>> from strategies import BMSFed, ClientInfo, Update
    >>> strategy = BMSFed(clients_per_round=3, threshold=1.2, seed=0)
    >>> strategy.state.arrays = {
    ...     "encoders.audio.w": np.zeros(2),
    ...     "encoders.visual.w": np.zeros(2),
    ...     "head.bias": np.zeros(1),
    ... }
    >>> clients = [ClientInfo(f"client-{i}", ("audio", "visual"), 10) for i in range(4)]
    >>> multi, enhancing = [0.0, 1.0, 8.0, 9.5], [0.0, 8.0, 1.0, 9.5]
    >>> strategy.aggregate_probe(1, [
    ...     Update(
    ...         client.client_id,
    ...         client.modalities,
    ...         ratios={"audio": 1.0, "visual": 1.5},  # visual is the weak one, everywhere
    ...         signatures={"multi": np.array([x]), "enhance.visual": np.array([y])},
    ...     )
    ...     for client, x, y in zip(clients, multi, enhancing)
    ... ])
    >>> assignments = strategy.configure_fit(1, clients)
    >>> for a in assignments:
    ...     print(a.client_id, "trains", *a.modalities)
    client-1 trains audio visual
    client-3 trains audio visual
    client-0 trains visual

    What they trained is averaged per modality; sample counts weigh.

    >>> def train(assignment, value):
    ...     arrays = {f"encoders.{m}.w": np.full(2, value) for m in assignment.modalities}
    ...     arrays["head.bias"] = np.full(1, value)
    ...     return Update(assignment.client_id, assignment.modalities, 10, arrays)
    >>> updates = [train(a, value) for a, value in zip(assignments, [1.0, 2.0, 6.0])]
    >>> for name, value in strategy.aggregate_fit(1, updates).items():
    ...     print(name, value)
    encoders.audio.w [1.5 1.5]
    encoders.visual.w [3. 3.]
    head.bias [3.]
    """

    private = "measuring"

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        threshold: float = THRESHOLD.default,
        gradient: Gradient = GRADIENT.default,
        sketch_dim: int = SKETCH_DIM.default,
        probe_batches: int = PROBE_BATCHES.default,
        pick: PickRule = PICK.default,
        uni_cover: UniCover = UNI_COVER.default,
        uni_ratio: UniRatio = UNI_RATIO.default,
        prototype_scope: PrototypeScope = PROTOTYPE_SCOPE.default,
        cover_sample: int = COVER_SAMPLE.default,
        measure_per_round: int = MEASURE_PER_ROUND.default,
        send_prototypes: bool = True,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(
            clients_per_round,
            gradient=gradient,
            sketch_dim=sketch_dim,
            probe_batches=probe_batches,
            cover_sample=cover_sample,
            measure_per_round=measure_per_round,
            share_prototypes=True,
            **options,
        )
        THRESHOLD.check("threshold", threshold)
        self.threshold = threshold
        self.pick: PickRule = pick
        self.uni_cover: UniCover = uni_cover
        self.uni_ratio: UniRatio = uni_ratio
        self.prototype_scope = prototype_scope
        self.send_prototypes = send_prototypes

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Select modalities of clients (Eqs. 12, 13).

        Parameters
        ----------
        server_round : int
            Seeds the random candidate sets, together with ``seed``.
        clients : sequence of ClientInfo
            Who is connected. Clients without a signature (not probed yet) cannot be selected.

        Returns
        -------
        list of Assignment
            At most one per client, in the order of picking; nobody is told to train what it
            lacks. Their ``reasons`` are the costs and the ratio behind each.
        """
        known = self.measured(clients)
        weak = self.shared()[0] or (known[0].modalities[0] if known else None)
        if weak is None:
            return []
        multi = self.cover("multi", server_round, known)  # G(S_M) and G(S_M ∪ S_I), Eq. 11
        enhancing = self.cover(f"enhance.{weak}", server_round, known)
        chosen = balanced_selection(
            multi,
            enhancing,
            holds_weak=np.array([weak in c.modalities for c in known]),
            holds_other=np.array([bool(set(c.modalities) - {weak}) for c in known]),
            ratios=np.array([self.ratio(c.client_id, weak) for c in known]),
            n=self.number_of_picks(clients, known),
            threshold=self.alone_above(),
            rng=self.draw("select", server_round),
            pick=self.pick,
            uni_cover=self.uni_cover,
        )
        common = {"weak": weak, "threshold": self.alone_above()}
        if len(known) > self.cover_sample:  # the costs are estimates: say how good
            common["error_multi"] = multi.standard_error
            common["error_weak"] = enhancing.standard_error
        return [_assignment(p, known[p.client], common) for p in chosen]

    def alone_above(self) -> float:
        """Return the ratio above which a client trains the weak modality alone: χ of Eq. 13."""
        return self.threshold

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average per modality (Algorithm 1) and refresh prototypes, ratios and signatures."""
        if self.prototype_scope == "selected":
            self.state.prototypes = {}
        if self.uni_cover == "uni":
            updates = [_without_enhancing_rows(u) if len(u.modalities) > 1 else u for u in updates]
        arrays = super().aggregate_fit(server_round, updates)
        if self.uni_ratio == "refresh":
            for update in updates:
                scores = self.state.scores[update.client_id]
                self.state.ratios[update.client_id] = imbalance_ratios(scores)
        return arrays

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Name the weak modality that the selection went by, also where no ratio is known."""
        orders = super().orders(server_round, assignment, kind)
        if kind == "train":
            orders = replace(orders, weak=assignment.reasons.get("weak", orders.weak))
        return orders if self.send_prototypes else replace(orders, prototypes={})


def _assignment(pick: Pick, client: ClientInfo, common: dict[str, Any]) -> Assignment:
    modalities = (common["weak"],) if pick.role == "uni" else client.modalities
    return Assignment(client.client_id, modalities, {**pick.reasons(), **common})


def _without_enhancing_rows(update: Update) -> Update:
    kept = {n: v for n, v in update.signatures.items() if not n.startswith("enhance.")}
    return replace(update, signatures=kept)
