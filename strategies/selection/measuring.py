"""What the strategies share that must have measured a client before they can select it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np

from ..base import ModalityStrategy, StrategyOptions
from ..decisions import whole
from ..messages import Assignment, ClientInfo
from ..ranges import Parameter

MEASURE_PER_ROUND = Parameter(0, ge=0)

#: Newcomers that are measured in a round unless the experiment says how many: at least so many.
_MEASURED = 100


class MeasuringStrategy(ModalityStrategy):
    """Base of strategies that select by vectors which clients measure.

    Clients are measured once after they enrolled ("probe"), with all that they hold, and cannot be
    selected before. The state keeps the latest vectors of each, in ``state.signatures``.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    measure_per_round : int, default 0
        Newcomers that are measured in one round at most, drawn at random. 0: twice as many as
        train, at least 100, so that small fleets are measured whole before the first round.
    **options
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    measures_once: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        measure_per_round: int = MEASURE_PER_ROUND.default,
        share_prototypes: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, share_prototypes=share_prototypes, **options)
        MEASURE_PER_ROUND.check("measure_per_round", measure_per_round)
        self.measure_per_round = measure_per_round

    def configure_probe(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Return clients that were never measured: all, or a draw of ``measure_per_round``."""
        new = [c for c in clients if not self.state.signatures.get(c.client_id)]
        n = self.resolve_clients_per_round(len(clients))
        most = self.measure_per_round or max(_MEASURED, 2 * n)
        if len(new) > most:
            rng = self.draw("measure", server_round)
            new = [new[i] for i in np.sort(rng.choice(len(new), most, replace=False))]
        return [whole(c) for c in new]

    def measured(self, clients: Sequence[ClientInfo]) -> list[ClientInfo]:
        """Return the clients that have a signature, by client id: only they can be selected."""
        known = [c for c in clients if self.state.signatures.get(c.client_id)]
        return sorted(known, key=lambda c: c.client_id)

    def number_of_picks(self, clients: Sequence[ClientInfo], known: Sequence[ClientInfo]) -> int:
        """Return how many to select: by all that are connected, but at most the known ones."""
        return min(self.resolve_clients_per_round(len(clients)), len(known))
