"""pow-d: the clients with the largest loss (Power-of-Choice; Cho et al., AISTATS 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Unpack

import numpy as np

from .base import ModalityStrategy, StrategyOptions
from .decisions import whole
from .messages import Assignment, ClientInfo, Kind, Update, copied
from .ranges import Parameter

D = Parameter(0, ge=0)


class PowerOfChoice(ModalityStrategy):
    """Ask d random clients for the global model's loss on their data; the n largest train.

    Candidates receive the model and answer one number: the mean cross-entropy over their training
    samples, in eval mode. Equal losses go by the order of the draw; a candidate that does not
    answer is out for the round. Averages are weighted by samples.

    The original draws candidates in proportion to their samples and averages equally; drawn here
    uniformly, as the BMSFed paper does. Losses of clients that hold different modalities cannot be
    compared, so a client that lacks one is refused (the paper calls pow-d inapplicable there).

    Nothing is kept between rounds. Traffic per round: the model to d clients, 4 bytes from each.

    Parameters
    ----------
    clients_per_round : int or float, optional
        n; see :class:`ModalityStrategy`.
    d : int, default 0
        Candidates per round, at least n; 0 takes ⌈N/2⌉ (the paper's), or n if that is more.
    seed, head_columns, app_version
        See :class:`ModalityStrategy`.

    Raises
    ------
    ValueError
        If ``d`` is negative, or above 0 and below a whole ``clients_per_round``.

    Source: https://arxiv.org/abs/2010.01243.
    """

    probes: ClassVar[Kind] = "loss"

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        d: int = D.default,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        D.check("d", d)
        if 0 < d < (clients_per_round or 0):
            raise ValueError(f"d is {d}: it must be 0 or at least {clients_per_round:g} clients")
        self.d = d

    def unsupported(self, client: ClientInfo) -> str | None:
        """Refuse a client that lacks a modality: its loss compares with nobody's."""
        if lacking := [m for m in self.state.modalities if m not in client.modalities]:
            return (
                f"client '{client.client_id}' lacks '{lacking[0]}': pow-d compares losses over "
                "all modalities; give it the data or choose another method"
            )
        return None

    def configure_probe(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw the d candidates, in the order that FedAvg would draw clients."""
        self.state.measured = {}
        return self._candidates(server_round, clients)

    def _candidates(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        ordered = sorted(clients, key=lambda c: c.client_id)
        total = len(ordered)
        d = max(self.d or -(-total // 2), self.resolve_clients_per_round(total))
        order = self.draw("select", server_round).permutation(total)
        return [whole(ordered[i]) for i in order[:d]]

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for one loss from every candidate."""
        if kind == "loss" and update.measurements.get("loss", np.empty(0)).shape != (1,):
            return "the answer holds no loss"
        return None

    def aggregate_probe(self, server_round: int, updates: Sequence[Update]) -> None:
        """Take the candidates' losses; nothing else of them is known or kept."""
        self.state.measured = {u.client_id: copied(u.measurements) for u in updates}

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Take the n candidates with the largest loss."""
        n = self.resolve_clients_per_round(len(clients))
        losses = {c: float(m["loss"][0]) for c, m in self.state.measured.items()}
        drawn = self._candidates(server_round, clients)
        answered = [a for a in drawn if a.client_id in losses]
        answered.sort(key=lambda a: -losses[a.client_id])  # stable: ties by the draw
        return [
            replace(
                a, reasons={**a.reasons, "loss": losses[a.client_id], "candidates": len(answered)}
            )
            for a in answered[:n]
        ]
