"""BMSFed: balanced modality selection (Fan et al., ECCV 2024, https://arxiv.org/abs/2401.00403)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .aggregation import imbalance_ratios
from .base import ModalityStrategy
from .facility import FacilityLocation
from .protocol import Arrays, Assignment, ClientInfo, Prototypes, Task, Update
from .randomness import generator, integer_seed
from .submodular import Pick, balanced_selection, cover_rows


class BMSFed(ModalityStrategy):
    """Select modalities of clients so that no strong modality starves the weak ones.

    Two facility-location functions are minimised greedily side by side (Eqs. 11-13): one over the
    clients' multi-modal gradients, one over the gradients that enhance the globally weak modality.
    Where they want the same client, it trains all it holds; where not, the second one's choice
    trains its weak modality alone if its imbalance ratio exceeds ``threshold``.

    Parameters
    ----------
    clients_per_round : int or float, default 0.5
        Clients, not picks: see :class:`ModalityStrategy`.
    threshold : float, default 1.2
        χ of Eq. 13, a ratio >= 0; the paper uses 1.2 to 2.5.
    gradient : {"decoupled", "update"}, default "decoupled"
        How clients measure signatures: gradients at the received model on ``probe_batches``
        mini-batches, with cross-entropy and modal enhancement apart; or the model's change over
        the whole local training, which costs nothing.
    sketch_dim : int, default 4096
        Numbers that a signature is sketched to; 0 sends exact gradients.
    probe_batches : int, default 1
        Mini-batches that a decoupled signature is measured on.
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
    cover_sample : int, default 5000
        Beyond so many clients the functions sum over a uniform sample of this size.
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
    >>> strategy.aggregate_probe([
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

    needs_probe: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float = 0.5,
        *,
        threshold: float = 1.2,
        gradient: Literal["decoupled", "update"] = "decoupled",
        sketch_dim: int = 4096,
        probe_batches: int = 1,
        pick: Literal["pair", "single"] = "pair",
        uni_cover: Literal["shared", "uni"] = "shared",
        uni_ratio: Literal["keep", "refresh"] = "keep",
        prototype_scope: Literal["all", "selected"] = "all",
        cover_sample: int = 5000,
        seed: int = 0,
        head_columns: Literal["own", "all"] = "own",
        app_version: str | None = None,
    ) -> None:
        super().__init__(
            clients_per_round, seed=seed, head_columns=head_columns, app_version=app_version
        )
        if threshold < 0 or sketch_dim < 0 or probe_batches < 1 or cover_sample < 1:
            raise ValueError(
                f"threshold {threshold} and sketch_dim {sketch_dim} must be >= 0, "
                f"probe_batches {probe_batches} and cover_sample {cover_sample} >= 1"
            )
        self.threshold, self.gradient = threshold, gradient
        self.sketch_dim, self.probe_batches = sketch_dim, probe_batches
        self.pick: Literal["pair", "single"] = pick
        self.uni_cover: Literal["shared", "uni"] = uni_cover
        self.uni_ratio: Literal["keep", "refresh"] = uni_ratio
        self.prototype_scope, self.cover_sample = prototype_scope, cover_sample
        self._prototypes: dict[str, Prototypes] = {}
        self._weak: str | None = None

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
            lacks. ``picks`` then holds the costs and the ratio behind each.
        """
        self._prototypes = self.state.global_prototypes()
        signatures = self.state.signatures
        known = [c for c in clients if signatures.get(c.client_id)]
        known.sort(key=lambda c: c.client_id)
        self._weak = weak = self.state.weak_modality() or (
            known[0].modalities[0] if known else None
        )
        if weak is None:
            return []
        multi, enhancing = self._covers(server_round, known, weak)
        chosen = balanced_selection(
            multi,
            enhancing,
            holds_weak=np.array([weak in c.modalities for c in known]),
            holds_other=np.array([bool(set(c.modalities) - {weak}) for c in known]),
            ratios=np.array([self._ratio(c.client_id, weak) for c in known]),
            n=self.resolve_clients_per_round(len(known)),
            threshold=self.threshold,
            rng=generator(self.seed, "select", server_round),
            pick=self.pick,
            uni_cover=self.uni_cover,
        )
        self.picks = [self._log(p, known[p.client], weak) for p in chosen]
        if len(known) > self.cover_sample:  # the costs are estimates: say how good
            errors = {"error_multi": multi.standard_error, "error_weak": enhancing.standard_error}
            self.picks = [pick | errors for pick in self.picks]
        return [_assignment(p, known[p.client], weak) for p in chosen]

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

    def task(self, server_round: int, assignment: Assignment, *, probe: bool = False) -> Task:
        """Add global prototypes, the weak modality and what to measure to the client's task."""
        task = super().task(server_round, assignment, probe=probe)
        if not probe:
            task.prototypes = {
                m: self._prototypes[m] for m in assignment.modalities if m in self._prototypes
            }
        task.settings = {
            "weak": None if probe else self._weak,
            "ratio": 1.0 if self._weak is None else self._ratio(assignment.client_id, self._weak),
            "prototypes": True,
            "signature": {
                "kind": self.gradient,
                "dim": self.sketch_dim,
                "seed": integer_seed(self.seed, "sketch"),
                "batches": self.probe_batches,
            },
        }
        return task

    def _covers(
        self, server_round: int, known: Sequence[ClientInfo], weak: str
    ) -> tuple[FacilityLocation, FacilityLocation]:
        """G(S_M) over multi-modal signatures, G(S_M ∪ S_I) over enhancing ones (Eq. 11)."""
        rng = generator(self.seed, "cover", server_round)
        rows = cover_rows(len(known), self.cover_sample, rng)
        return (
            FacilityLocation(self._matrix("multi", known), rows),
            FacilityLocation(self._matrix(f"enhance.{weak}", known), rows),
        )

    def _matrix(self, name: str, known: Sequence[ClientInfo]) -> NDArray[np.float32]:
        """Signatures as rows (N, d); a client that lacks the modality has a zero row."""
        rows = [self.state.signatures[c.client_id].get(name) for c in known]
        length = next((r.size for r in rows if r is not None), 1)
        matrix = np.zeros((len(rows), length), np.float32)
        for i, row in enumerate(rows):
            if row is not None:
                matrix[i] = row
        return matrix

    def _ratio(self, client_id: str, modality: str) -> float:
        return self.state.ratios.get(client_id, {}).get(modality, 1.0)

    def _log(self, pick: Pick, client: ClientInfo, weak: str) -> dict[str, Any]:
        return {
            **dataclasses.asdict(pick),
            "client": client.client_id,
            "modalities": list(_assignment(pick, client, weak).modalities),
            "weak": weak,
            "threshold": self.threshold,
        }


def _assignment(pick: Pick, client: ClientInfo, weak: str) -> Assignment:
    return Assignment(client.client_id, (weak,) if pick.role == "uni" else client.modalities)


def _without_enhancing_rows(update: Update) -> Update:
    kept = {n: v for n, v in update.signatures.items() if not n.startswith("enhance.")}
    return dataclasses.replace(update, signatures=kept)
