"""FedNH (Dai et al., AAAI 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Experiment, MethodSettings, Named, field
from strategies import FedNH, ModalityStrategy
from strategies.fednh import RHO


@METHODS.register("fednh")
class FedNHSettings(MethodSettings):
    """FedNH."""

    summary = "a cosine head whose class directions only the server moves, after class prototypes"
    equations = (
        "logits_c = s cos(z, W_c);  F_k = CE with W frozen, rows orthonormal at first\n"
        "p_kc = unit(mean z / ||z||);  P_c = unit(Σ_k n_kc p_kc / Σ_k n_kc)\n"
        "W_c <- unit(ρ W_c + (1-ρ) P_c); a class nobody has keeps W_c\n"
        "a client that lacks a modality: cosines and p over the blocks it has; P's blocks are "
        "means over their holders"
    )
    travels = (
        "class directions up in place of the head's weights, and class counts, those of a modality "
        "too where samples lack it; nothing is kept"
    )
    source = "Dai et al., AAAI 2023, arXiv:2212.02758; bodies averaged by samples; blocks: ours"
    merges_by = "class directions are averaged by class counts"
    overrides: ClassVar = {"clip_norm": 10.0}

    rho: float = field(RHO, "ρ: how much of the class directions stays")
    scale: float = Field(1.0, gt=0, le=1000, description="s: initial scale of the cosines, learnt")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Move the class directions."""
        return FedNH(rho=self.rho, head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """Cross-entropy with class directions that stay."""
        return "frozen_head", {}

    def head(self) -> Named:
        """Cosines."""
        return "cosine", {"scale": self.scale}

    def check(self, config: Experiment) -> str | None:
        """Ask for features enough that class directions can be orthogonal."""
        spec = config.network_spec()
        width = sum(spec.width(m) for m in spec.encoders)
        if spec.num_classes > width:
            return (
                f"needs orthogonal class directions, but the encoders give {width} features for "
                f"{spec.num_classes} classes; choose wider encoders"
            )
        return None
