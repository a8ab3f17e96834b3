"""Local training: what federated learning is compared with."""

from __future__ import annotations

from typing import Any

from bmsfed_app.methods.base import METHODS, MethodSettings
from strategies import LocalTraining, ModalityStrategy


@METHODS.register("local")
class LocalSettings(MethodSettings):
    """Local training."""

    summary = "no aggregation: every client trains alone; mean of their test accuracies"
    equations = "θ_k <- local training from θ_k;  accuracy = Σ_k q_k accuracy(θ_k) over all clients"
    travels = "a client's own model both ways; the server keeps one model per client"
    source = "BMSFed paper, Table 1; clients take turns as FedAvg draws them"
    merges_by = "nothing is merged"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Keep every client's model."""
        return LocalTraining(head_columns=self.head_columns, **common)
