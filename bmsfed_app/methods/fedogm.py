"""OGM-GE (Peng et al., CVPR 2022) at the clients of FedAvg."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Named
from bmsfed_app.methods.shared import ALONE, ModulationSettings


@METHODS.register("fedogm")
class FedOGMSettings(ModulationSettings):
    """FedOGM."""

    summary = "FedAvg with OGM-GE: the leading modality's encoder gradient is scaled down"
    equations = (
        "s_m = Σ_i softmax(W_m z_m + b/a)[y], ρ_m = s_m / mean of the others\n"
        "k_m = 1 - tanh(alpha ρ_m) if ρ_m > 1, else 1;  g_m <- k_m g_m + N(0, std(g_m)²)"
    )
    source = "Peng et al., CVPR 2022" + ALONE

    binds: ClassVar = {"head": "it reads each modality's share off a linear head"}

    alpha: float = Field(0.8, ge=0, le=100, description="strength; official 0.8, on CG data 0.2")
    noise: bool = Field(True, description="add the noise of generalisation enhancement")

    def objective(self) -> Named:
        """Cross-entropy with modulated gradients."""
        return "ogm_ge", self.model_dump(include={"alpha", "noise", "until"})
