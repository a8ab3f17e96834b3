"""Settings that several methods have: of modal enhancement, of gradients, of modulation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmsfed_app.methods.base import MethodSettings, Named, field
from strategies.selection.measuring import MEASURE_PER_ROUND
from strategies.selection.signatures import (
    COVER_SAMPLE,
    GRADIENT,
    PROBE_BATCHES,
    SKETCH_DIM,
    Gradient,
)


class CoefficientSettings(MethodSettings):
    """How much the enhancement loss weighs."""

    coefficient: Literal["clipped", "constant"] = Field(
        "clipped", description="weight of the enhancement loss: clip(ρ-1, 0, 1) (Eq. 19), constant"
    )
    coefficient_value: float = Field(1.0, ge=0, le=100, description="the constant weight")


class EnhancementSettings(CoefficientSettings):
    """Settings of modal enhancement by global prototypes (Eqs. 7-9, 19)."""

    uni_enhancement: Literal["weak", "always"] = Field(
        "weak", description="uni-modal clients are enhanced in the weak modality only, or always"
    )
    head_weight: float = Field(
        0.0, ge=0, le=100, description="weight of a cross-entropy through the weak head columns"
    )

    def objective(self) -> Named:
        """Cross-entropy with modal enhancement."""
        keys = set(EnhancementSettings.model_fields) - set(MethodSettings.model_fields)
        return "modal_enhancement", self.model_dump(include=keys)


class GradientSettings(MethodSettings):
    """Settings of methods that compare clients by gradients."""

    gradient: Gradient = field(
        GRADIENT, "signatures: gradients at the received model, or its change"
    )
    sketch_dim: int = field(SKETCH_DIM, "sketch size; 0 = exact")
    probe_batches: int = field(PROBE_BATCHES, "mini-batches behind a signature")
    cover_sample: int = field(COVER_SAMPLE, "clients the functions sum over at most")

    measure_per_round: int = field(
        MEASURE_PER_ROUND,
        "newcomers measured a round at most, and selectable then; 0 = twice those that train, at "
        "least 100",
    )

    def selection(self) -> dict[str, Any]:
        """Return what a strategy that selects by gradients is built with."""
        keys = set(GradientSettings.model_fields) - {"uni_weight"}
        return self.model_dump(include=keys)


class ModulationSettings(MethodSettings):
    """Settings of methods that modulate local training for a while."""

    until: float = Field(0.4, ge=0, le=1, description="share of the rounds in which it acts")


#: What holds of methods that balance modalities within a client.
ALONE = "; a client with one modality trains by plain CE"
