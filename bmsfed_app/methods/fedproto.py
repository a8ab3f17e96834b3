"""FedProto (Tan et al., AAAI 2022), and as the BMSFed authors' published code has it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named
from strategies import FedAvg, ModalityStrategy


@METHODS.register("fedproto")
class FedProtoSettings(MethodSettings):
    """FedProto."""

    summary = "FedAvg that pulls features towards global prototypes"
    equations = "F_k = CE + λ Σ_m mean_i ||z_m - c_m,y||² / D, c: global prototypes"
    travels = "prototypes both ways; the server keeps each client's"
    source = "Tan et al., AAAI 2022; models are averaged too"
    distance: ClassVar[str] = "squared"

    lam: float = Field(1.0, ge=0, le=100, description="λ, weight of the distance to prototypes")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Send global prototypes along."""
        return FedAvg(head_columns=self.head_columns, share_prototypes=True, **common)

    def objective(self) -> Named:
        """Cross-entropy and the distance to prototypes."""
        return "prototype_distance", {"lam": self.lam, "distance": self.distance}


@METHODS.register("fedproto-release")
class FedProtoReleaseSettings(FedProtoSettings):
    """FedProto of BMSFed's published code."""

    summary = "FedProto as in the BMSFed authors' published code: softmax over distances"
    equations = "F_k = CE + λ Σ_m mean_i -log softmax_j(-||z_m - c_m,j||)[y]"
    source = "BMSFed's published code"
    distance = "softmax"
