"""Local training: no aggregation, every client keeps a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from .evaluated import EvaluationModel
from .fedavg import FedAvg
from .messages import Arrays, Assignment, Update, copied, select_parts


class LocalTraining(FedAvg):
    """Every client trains alone; what counts is the mean of their test accuracies.

    Clients take turns as FedAvg draws them, so that a client trains as much as it would in a
    federation; with ``clients_per_round`` the number of all clients, everyone trains each round.
    All start from the same initial model, which stays the server's ``state.arrays``. The accuracy
    is the mean over all clients known, weighted by their samples; who lacks a modality is tested
    without it.

    Clients keep nothing between messages, so their models live in the server's state: the bytes
    of one model for each client, which travel both ways as a global model would.

    Takes the parameters of :class:`ModalityStrategy`.

    Source: BMSFed paper, Table 1 ("Local").
    """

    evaluated: ClassVar[str] = "the clients' own models, weighted mean"
    merges: ClassVar[bool] = False

    def model_for(self, assignment: Assignment) -> Arrays:
        """Return the client's own model, or the initial one the first time."""
        return self._own(assignment.client_id, assignment.modalities)

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Keep each client's model; the server's own stays the initial one."""
        for update in sorted(updates, key=lambda u: u.client_id):
            self.state.absorb(update)
            own = self.state.memory.setdefault(update.client_id, {})
            own |= copied(update.arrays) | {"round": np.array(server_round)}
        self.state.round = server_round
        return self.state.arrays

    def models(self) -> list[EvaluationModel]:
        """Return every client's model; those that have not trained share the initial one."""
        made = []
        for client_id, info in sorted(self.state.clients.items()):
            trained = int(self.state.memory.get(client_id, {}).get("round", 0))
            made.append(
                EvaluationModel(
                    client_id if trained else f"initial {'+'.join(info.modalities)}",
                    trained,
                    float(info.num_samples),
                    self._own(client_id, info.modalities),
                    self.state.prototypes.get(client_id, {}),
                )
            )
        return made or super().models()

    def _own(self, client_id: str, modalities: Sequence[str]) -> Arrays:
        arrays = select_parts(self.state.arrays, modalities)
        own = self.state.memory.get(client_id, {})
        return {name: own.get(name, value) for name, value in arrays.items()}
