"""Greedy: conditional learning speed (Wu et al., ICML 2022) at the clients of FedAvg."""

from __future__ import annotations

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named


@METHODS.register("greedy")
class GreedySettings(MethodSettings):
    """Greedy."""

    summary = (
        "FedAvg with Greedy: gated branches balanced by conditional learning speed; needs "
        "local_epochs >= 2 to re-balance"
    )
    equations = (
        "h = relu(Σ_m U_m z_m + c), z'_m = z_m * sigmoid(V_m h + c_m);  logits = mean_m(W_m z'_m "
        "+ b_m), F_k = Σ_m CE(W_m z'_m + b_m)\n"
        "v_m = log10(B_m / E_m), sums of ||grad||²/||θ||² of gate (U, c, V_m, c_m) and branch\n"
        "from the second local epoch: if max v - min v > eps, the gate of argmax v is its running "
        "mean for q steps"
    )
    travels = (
        "gates and their running means with the head: 16 (Σ_m D_m)² / ratio bytes more each way, 4 "
        "MiB for two conv4; nothing is kept"
    )
    source = (
        "Wu et al., ICML 2022, arXiv:2202.05306; one MMTM on pooled features; a client that lacks "
        "modalities gates what it has, one with a single modality has nothing to balance"
    )

    eps: float = Field(0.01, ge=0, description="difference of speeds that is tolerated")
    q: int = Field(5, ge=1, description="Q: steps that a gate stays frozen")
    ratio: int = Field(4, ge=1, description="squeezed width: 2 Σ_m D_m / ratio")

    def objective(self) -> Named:
        """The branches' losses, re-balanced by freezing a gate."""
        return "greedy", self.model_dump(include={"eps", "q"})

    def head(self) -> Named:
        """Gated branches."""
        return "mmtm", {"ratio": self.ratio}
