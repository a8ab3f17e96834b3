"""AGM (Li et al., ICCV 2023) at the clients of FedAvg."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Named
from bmsfed_app.methods.shared import ALONE, ModulationSettings
from strategies import AGM, ModalityStrategy


@METHODS.register("agm")
class AGMSettings(ModulationSettings):
    """AGM."""

    summary = "FedAvg with AGM: gradients scaled by each modality's lead against its history"
    equations = (
        "φ_m = W_m z_m + b/a (Shapley value), s_m = mean -log softmax(φ_m)[y]\n"
        "r_m = exp(mean_o(s_o - s_m)), τ_m the same of running means;  "
        "g_m <- exp(alpha min(τ_m - r_m, 10)) g_m"
    )
    travels = "K + 1 numbers both ways; the server keeps them for each client"
    source = "Li et al., ICCV 2023" + ALONE

    binds: ClassVar = {"head": "it reads each modality's share off a linear head"}

    alpha: float = Field(1.0, ge=0, le=100, description="strength; official 1")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Keep every client's running means."""
        return AGM(head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """Cross-entropy with modulated gradients."""
        return "agm", self.model_dump(include={"alpha", "until"})
