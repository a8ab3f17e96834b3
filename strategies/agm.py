"""AGM's server side: FedAvg that keeps each client's running mono-modal losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .expected import Shape
from .fedavg import FedAvg
from .messages import Arrays, Assignment, Kind, Orders, Update, copied


class AGM(FedAvg):
    """FedAvg that carries AGM's running means from one of a client's rounds to its next.

    Clients keep nothing between messages. Each answers with its running mean loss S_m of every
    modality it trained and with the number of steps t behind them (``measurements``
    "agm.<modality>" and "agm.steps", shape (1,), 8 bytes each); the server keeps them per client
    and sends them with the next task as ``method_state`` {"means", "steps"}.

    Takes the parameters of :class:`ModalityStrategy`.

    Source: Li et al., ICCV 2023, https://arxiv.org/abs/2308.07686.
    """

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Add the client's running means."""
        orders = super().orders(server_round, assignment, kind)
        kept = self.state.memory.get(assignment.client_id)
        if kept is None:
            return orders
        values = {n.removeprefix("agm."): float(v[0]) for n, v in kept.items()}
        steps = int(values.pop("steps"))
        return replace(orders, method_state={"means": values, "steps": steps})

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take one number per modality, and the steps behind them."""
        return dict.fromkeys([*(f"agm.{m}" for m in orders.modalities), "agm.steps"], (1,))

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Ask for one number per modality and the steps behind them, or for nothing."""
        found = update.measurements
        wanted = {f"agm.{m}" for m in update.modalities} | {"agm.steps"}
        if found and (set(found) != wanted or any(v.shape != (1,) for v in found.values())):
            return f"AGM's running means are {sorted(found)}, expected {sorted(wanted)}"
        return None

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average the parts and keep the clients' running means."""
        for update in updates:
            if update.measurements:
                kept = self.state.memory.setdefault(update.client_id, {})
                kept.update(copied(update.measurements))
        return super().aggregate_fit(server_round, updates)
