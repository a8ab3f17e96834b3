"""FedAvg-x: random clients, some of which leave out a random modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from .base import StrategyOptions
from .fedavg import FedAvg
from .messages import Assignment, ClientInfo
from .randomness import generator
from .ranges import Parameter

DROP = Parameter(0.5, ge=0, le=1)


class ModalityDropout(FedAvg):
    """FedAvg whose clients leave out one random modality with probability ``drop``.

    The server draws it with the assignment, from (seed, round, client), or from (seed, client)
    where ``fixed``: so nothing is kept, and a resumed run draws the same. One of the modalities
    that the client holds is left out, never the last one.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    drop : float
        Probability x, from 0 (FedAvg) to 1.
    fixed : bool, default False
        Draw once per client instead of once per client and round ("-fix").
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If ``drop`` is not in [0, 1].

    Source: BMSFed paper, Tables 1, 4 and 8 ("FedAvg-x", "FedAvg-x-fix").
    """

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        drop: float,
        fixed: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        DROP.check("drop", drop)
        self.drop, self.fixed = drop, fixed

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw clients as FedAvg does, then what each leaves out."""
        assignments = []
        for drawn in super().configure_fit(server_round, clients):
            kept = self._kept(server_round, drawn)
            role = "uni" if len(kept) < len(drawn.modalities) else "multi"
            assignments.append(Assignment(drawn.client_id, kept, {"role": role}))
        return assignments

    def _kept(self, server_round: int, assignment: Assignment) -> tuple[str, ...]:
        held, client = assignment.modalities, assignment.client_id
        when = () if self.fixed else (server_round,)
        rng = generator(self.seed, "drop", client, *when)
        dropped, which = rng.random() < self.drop, int(rng.integers(len(held)))
        if not dropped or len(held) == 1:
            return held
        return held[:which] + held[which + 1 :]
