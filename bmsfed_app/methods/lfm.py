"""LFM (NeurIPS 2024) at the clients of FedAvg."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named
from bmsfed_app.methods.shared import ALONE


@METHODS.register("lfm")
class LFMSettings(MethodSettings):
    """LFM.

    The authors' code has a linear head per modality and CE of their mean; here the modalities'
    shares of one linear head take their place, and CE is of their sum.
    """

    summary = "FedAvg with LFM: the modalities' predictions are aligned, at first above all"
    equations = (
        "F_k = 2 [α CE + (1 - α) mean over pairs R]\n"
        "R = (KL(M||p) + KL(M||q)) / 2, M = (p + q) / 2\n"
        "p, q: softmax of W_m z_m + b/a of two modalities;  α a polynomial of the share of rounds, "
        "0.20 at first, 0.54 after half"
    )
    source = "code of njustkmg/NeurIPS24-LFM" + ALONE
    binds: ClassVar = {"head": "it reads each modality's share off a linear head"}

    alpha: float | None = Field(
        None, ge=0, le=1, description="weight of CE; none: the published schedule"
    )

    def objective(self) -> Named:
        """Cross-entropy and alignment."""
        return "lfm", {"alpha": self.alpha}
