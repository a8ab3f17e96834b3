"""What the strategies share that compare clients by gradients: signing, keeping, covering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from ..base import StrategyOptions
from ..messages import (
    Arrays,
    Assignment,
    ClientInfo,
    Kind,
    Orders,
    SignatureOrders,
    Update,
    owner,
)
from ..randomness import generator, integer_seed
from ..ranges import Parameter
from .facility import FacilityLocation
from .measuring import MEASURE_PER_ROUND, MeasuringStrategy
from .sketch import count_sketch
from .submodular import cover_rows

Gradient = Literal["decoupled", "update"]

GRADIENT: Parameter[Gradient] = Parameter("decoupled")
SKETCH_DIM = Parameter(4096, ge=0, le=10_000_000)
PROBE_BATCHES = Parameter(1, ge=1, le=100_000)
COVER_SAMPLE = Parameter(5000, ge=1)


class SignatureStrategy(MeasuringStrategy):
    """Base of strategies that select by signatures.

    Clients sign once after they enrolled, and cannot be selected before; afterwards only those
    that train refresh their signatures (DivFL's "no-overheads"). The state keeps the latest of
    each client.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    gradient : {"decoupled", "update"}, default "decoupled"
        How clients measure signatures: gradients at the received model on ``probe_batches``
        mini-batches, with cross-entropy and modal enhancement apart; or the model's change over
        the whole local training, which costs nothing.
    sketch_dim : int, default 4096
        Numbers that a signature is sketched to; 0 sends exact gradients.
    probe_batches : int, default 1
        Mini-batches that a decoupled signature is measured on.
    cover_sample : int, default 5000
        Beyond so many clients the functions sum over a uniform sample of this size.
    measure_per_round
        See :class:`strategies.selection.measuring.MeasuringStrategy`.
    seed, head_columns, share_prototypes, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    #: Whether clients also measure what they offer to each modality as the weak one (Eq. 10).
    enhancing: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        gradient: Gradient = GRADIENT.default,
        sketch_dim: int = SKETCH_DIM.default,
        probe_batches: int = PROBE_BATCHES.default,
        cover_sample: int = COVER_SAMPLE.default,
        measure_per_round: int = MEASURE_PER_ROUND.default,
        share_prototypes: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(
            clients_per_round,
            measure_per_round=measure_per_round,
            share_prototypes=share_prototypes,
            **options,
        )
        SKETCH_DIM.check("sketch_dim", sketch_dim)
        PROBE_BATCHES.check("probe_batches", probe_batches)
        COVER_SAMPLE.check("cover_sample", cover_sample)
        self.gradient, self.sketch_dim = gradient, sketch_dim
        self.probe_batches, self.cover_sample = probe_batches, cover_sample

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Add what to sign, and how."""
        signature = SignatureOrders(
            self.gradient,
            self.sketch_dim,
            self.probe_batches,
            integer_seed(self.seed, "sketch"),
            self.enhancing,
        )
        return replace(super().orders(server_round, assignment, kind), signature=signature)

    def complete(self, update: Update, received: Arrays) -> None:
        """Make signatures of a client that offers none from its update, ``received - returned``.

        As with ``gradient="update"``: the change of each modality's arrays stands for its
        gradient, and for what the client offers to that modality. Includes running statistics
        of normalisation layers, which the server cannot tell from parameters.
        """
        if update.signatures:
            return
        changes: dict[str, list[NDArray[np.float32]]] = {}
        for name, before in received.items():
            modality = owner(name)
            if name.startswith("encoders.") and np.issubdtype(before.dtype, np.floating):
                change = before.astype(np.float32) - update.arrays[name].astype(np.float32)
                changes.setdefault(str(modality), []).append(change.ravel())
        vectors = {m: np.concatenate(parts) for m, parts in changes.items()}
        vectors = {m: v for m, v in vectors.items() if m in update.modalities}
        held = self.state.clients[update.client_id].modalities
        alone = len(vectors) == 1 < len(held)  # says nothing of all that the client holds
        update.signatures = {} if alone else {"multi": self._vector(vectors)}
        if self.enhancing:
            for m, v in vectors.items():
                update.signatures[f"enhance.{m}"] = self._vector({m: v}) if self.sketch_dim else v

    def _vector(self, vectors: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Sketch vectors by modality, or lay them out exactly with zeros for what is missing."""
        if self.sketch_dim > 0:
            return count_sketch(vectors, self.sketch_dim, integer_seed(self.seed, "sketch"))
        sizes = dict.fromkeys(self.state.modalities, 0)
        for name, array in self.state.arrays.items():
            if name.startswith("encoders.") and np.issubdtype(array.dtype, np.floating):
                sizes[str(owner(name))] += array.size
        blocks = [vectors[m] if m in vectors else np.zeros(n) for m, n in sizes.items()]
        return np.concatenate(blocks).astype(np.float32)

    def cover(self, name: str, server_round: int, known: Sequence[ClientInfo]) -> FacilityLocation:
        """Return the facility-location function over the known clients' signatures ``name``."""
        rng = generator(self.seed, "cover", server_round)  # the same sample for every name
        rows = cover_rows(len(known), self.cover_sample, rng)
        return FacilityLocation(self._matrix(name, known), rows)

    def _matrix(self, name: str, known: Sequence[ClientInfo]) -> NDArray[np.float32]:
        """Signatures as rows (N, d); a client that lacks the modality has a zero row."""
        found = [self.state.signatures[c.client_id].get(name) for c in known]
        length = next((r.size for r in found if r is not None), 1)
        matrix = np.zeros((len(found), length), np.float32)
        for i, row in enumerate(found):
            if row is not None:
                matrix[i] = row
        return matrix
