"""G-Blending (Wang et al., CVPR 2020) at the clients of FedAvg."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Experiment, MethodSettings, Named, field
from strategies import GBlending, ModalityStrategy
from strategies.g_blending import SUPER_EPOCH, weights_fault


@METHODS.register("g-blending")
class GBlendingSettings(MethodSettings):
    """G-Blending."""

    summary = (
        "FedAvg with G-Blending: joint and uni-modal losses weighed by how well each generalises"
    )
    equations = (
        "F_k = w_0 CE_joint + Σ_m w_m CE_m, CE_m through modality m's own head (unused at test)\n"
        "w = max(G, 0) / max(O², 1e-6), sum 1: G the fall of the held-out loss, O the growth of\n"
        "(held-out - training loss) over local training; equal at first, anew each super_epoch"
    )
    travels = (
        "a head per modality with its encoder; K + 1 weights down; 4 losses per head up; the "
        "server keeps sums and weights, nothing per client"
    )
    source = (
        "Wang et al., CVPR 2020, arXiv:1905.12681; losses of the joint training in place of solo "
        "trainings (K + 1 times the cost); a client that lacks modalities blends the heads it has"
    )
    merges_by = "the weights of its losses are means of what clients say"

    weights: dict[str, float] = Field(
        {}, description="fixed weights, as {joint: 1, MODALITY: 0.5}; empty: estimated"
    )
    holdout: float = Field(
        0.1, ge=0, le=0.5, description="share held out of training; 0 with fixed weights only"
    )
    super_epoch: int = field(SUPER_EPOCH, "rounds between two estimates of the weights")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Estimate the weights, or send the fixed ones."""
        own = self.model_dump(include={"weights", "super_epoch", "head_columns"})
        return GBlending(**own, **common)

    def objective(self) -> Named:
        """Blended losses, measured on samples held out where weights are estimated."""
        return "g_blending", {"holdout": self.holdout, "measure": not self.weights}

    def head(self) -> Named:
        """A head per modality besides the joint one."""
        return "blending", {}

    def check(self, config: Experiment) -> str | None:
        """Ask for samples to estimate weights on, and for weights of heads that there are."""
        if not self.weights and self.holdout == 0:
            return (
                "holdout: 0, but weights are estimated on samples held out; raise it or set weights"
            )
        return weights_fault(self.weights, config.dataset_info().modalities)
