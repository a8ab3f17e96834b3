"""What the strategies share that compare clients by gradients: measuring, keeping, covering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from .base import ModalityStrategy, StrategyOptions
from .facility import FacilityLocation
from .protocol import Assignment, ClientInfo, Task
from .randomness import generator, integer_seed
from .submodular import cover_rows


class SignatureStrategy(ModalityStrategy):
    """Base of strategies that select by signatures.

    Clients are measured once when they enrol ("probe"); afterwards only those that train refresh
    their signatures (DivFL's "no-overheads"). The state keeps the latest of each client.

    Parameters
    ----------
    clients_per_round : int or float, default 0.5
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
        clients_per_round: int | float = 0.5,
        *,
        gradient: Literal["decoupled", "update"] = "decoupled",
        sketch_dim: int = 4096,
        probe_batches: int = 1,
        cover_sample: int = 5000,
        share_prototypes: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, share_prototypes=share_prototypes, **options)
        if sketch_dim < 0 or probe_batches < 1 or cover_sample < 1:
            raise ValueError(
                f"sketch_dim {sketch_dim} must be >= 0, probe_batches {probe_batches} and "
                f"cover_sample {cover_sample} >= 1"
            )
        self.gradient, self.sketch_dim = gradient, sketch_dim
        self.probe_batches, self.cover_sample = probe_batches, cover_sample

    def configure_probe(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Return the clients that were never measured."""
        new = [c for c in clients if not self.state.signatures.get(c.client_id)]
        return [Assignment(c.client_id, c.modalities) for c in new]

    def task(self, server_round: int, assignment: Assignment, *, probe: bool = False) -> Task:
        """Add what to measure to the client's task."""
        task = super().task(server_round, assignment, probe=probe)
        task.settings["signature"] = {
            "kind": self.gradient,
            "dim": self.sketch_dim,
            "seed": integer_seed(self.seed, "sketch"),
            "batches": self.probe_batches,
            "enhancing": self.enhancing,
        }
        return task

    def measured(self, clients: Sequence[ClientInfo]) -> list[ClientInfo]:
        """Return the clients that have a signature, by client id: only they can be selected."""
        known = [c for c in clients if self.state.signatures.get(c.client_id)]
        return sorted(known, key=lambda c: c.client_id)

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
