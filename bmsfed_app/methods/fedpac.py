"""FedPAC (Xu et al., ICLR 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named
from strategies import FedPAC, ModalityStrategy


@METHODS.register("fedpac")
class FedPACSettings(MethodSettings):
    """FedPAC."""

    summary = "features aligned to global prototypes, and a personal mixture of heads"
    equations = (
        "one epoch of the head on the received features, then the encoders by\n"
        "F_k = CE + λ Σ_m mean((z_m - c_m,y)²), c: global prototypes, from round 2 on\n"
        "h_kc = share · mean of class c, V_k = (E||z||² - Σ_c ||h_kc||²) / n_k, per modality\n"
        "head_i = Σ_j α_ij head_j, α_i = argmin Σ_j α_j² V_j + ||h_i - Σ_j α_j h_j||², Σ α = 1, "
        "α >= 0\n"
        "a client that lacks a modality: α among each block's trainers, the bias by their mean"
    )
    travels = (
        "prototypes both ways, h (as large as prototypes) and V up; the server keeps one head per "
        "client"
    )
    source = (
        "Xu et al., ICLR 2023, arXiv:2306.11867; tested with the mean of the heads that came in"
    )
    merges_by = "heads are mixed by a quadratic programme of its own"

    binds: ClassVar = {"head": "it mixes the columns of linear heads"}

    lam: float = Field(1.0, ge=0, le=100, description="λ: weight of the distance to prototypes")
    head_lr: float = Field(0.1, gt=0, le=10, description="learning rate of the head's own epoch")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Mix heads."""
        return FedPAC(head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """The head first, then the encoders with aligned features."""
        return "feature_alignment", self.model_dump(include={"lam", "head_lr"})
