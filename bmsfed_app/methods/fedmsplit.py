"""FedMSplit (Chen and Zhang, KDD 2022)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named, field
from strategies import FedMSplit, ModalityStrategy
from strategies.fedmsplit import GAMMA


@METHODS.register("fedmsplit")
class FedMSplitSettings(MethodSettings):
    """FedMSplit."""

    summary = "blocks averaged by attention between clients that learn alike"
    equations = (
        "A_p = rowsoftmax(cos(u_k, u_l)), u: change of block p (each encoder, the head)\n"
        "e_kl = Σ_p A_p[k,l] / (1 + shared modalities);  r_p = A_p e, rows to sum 1\n"
        "θ_p = Σ_k q_k (γ θ_k + (1-γ) Σ_l r_kl θ_l)\n"
        "F_k = CE + μ/2 ||θ - θ_received||²\n"
        "a client that lacks a modality is not in that block's graph"
    )
    travels = "nothing besides the parts; nothing is kept"
    source = (
        "Chen and Zhang, KDD 2022; one global model, cosines of changes, γ as the own share: ours"
    )
    merges_by = "it weighs clients by how alike they learn"

    gamma: float = field(GAMMA, "γ: a client's own share; 1: plain averages")
    mu: float = Field(0.02, ge=0, le=100, description="μ: weight of the proximal term")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Average by attention."""
        return FedMSplit(gamma=self.gamma, head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """Cross-entropy and the proximal term."""
        return "proximal", {"mu": self.mu}
