"""FedProx (Li et al., MLSys 2020)."""

from __future__ import annotations

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named


@METHODS.register("fedprox")
class FedProxSettings(MethodSettings):
    """FedProx."""

    summary = "FedAvg with a proximal term"
    equations = "F_k = CE + (mu/2) ||w - w_t||² over the parts being trained"
    source = "Li et al., MLSys 2020; the BMSFed paper takes mu 1 to 2"

    mu: float = Field(1.0, ge=0, le=100, description="weight of the proximal term; keep lr·mu < 2")

    def objective(self) -> Named:
        """Cross-entropy and the proximal term."""
        return "proximal", {"mu": self.mu}
