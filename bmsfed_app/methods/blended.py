"""Methods that train a head per modality besides or instead of the joint one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, Named, fedavg
from strategies import GBlending, ModalityStrategy
from strategies.g_blending import weights_fault

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig


class GBlendingSettings(MethodSettings):
    """Settings of G-Blending."""

    weights: dict[str, float] = Field(
        {}, description="fixed weights, as {joint: 1, MODALITY: 0.5}; empty: estimated"
    )
    holdout: float = Field(
        0.1, ge=0, le=0.5, description="share held out of training; 0 with fixed weights only"
    )
    super_epoch: int = Field(10, ge=1, description="rounds between two estimates of the weights")


class GreedySettings(MethodSettings):
    """Settings of Greedy."""

    eps: float = Field(0.01, ge=0, description="difference of speeds that is tolerated")
    q: int = Field(5, ge=1, description="Q: steps that a gate stays frozen")
    ratio: int = Field(4, ge=1, description="squeezed width: 2 Σ_m D_m / ratio")


def _g_blending(settings: GBlendingSettings, common: dict[str, Any]) -> ModalityStrategy:
    own = settings.model_dump(include={"weights", "super_epoch", "head_columns"})
    return GBlending(**own, **common)


def _blended_losses(settings: GBlendingSettings) -> Named:
    return "g_blending", {"holdout": settings.holdout, "measure": not settings.weights}


def _own_heads(settings: GBlendingSettings) -> Named:
    return "blending", {}


def _check_g_blending(settings: GBlendingSettings, config: ExperimentConfig) -> str | None:
    if not settings.weights and settings.holdout == 0:
        return "holdout: 0, but weights are estimated on samples held out; raise it or set weights"
    return weights_fault(settings.weights, config.dataset_info().modalities)


def _greedy(settings: GreedySettings) -> Named:
    return "greedy", settings.model_dump(include={"eps", "q"})


def _mmtm(settings: GreedySettings) -> Named:
    return "mmtm", {"ratio": settings.ratio}


METHODS = {
    "g-blending": Method(
        "FedAvg with G-Blending: joint and uni-modal losses weighed by how well each generalises",
        "F_k = w_0 CE_joint + Σ_m w_m CE_m, CE_m through modality m's own head (unused at test)\n"
        "w = max(G, 0) / max(O², 1e-6), sum 1: G the fall of the held-out loss, O the growth of\n"
        "(held-out - training loss) over local training; equal at first, anew each super_epoch",
        "a head per modality with its encoder; K + 1 weights down; 4 losses per head up; the "
        "server keeps sums and weights, nothing per client",
        "Wang et al., CVPR 2020, arXiv:1905.12681; losses of the joint training in place of solo "
        "trainings (K + 1 times the cost); a client that lacks modalities blends the heads it has",
        _g_blending,
        _blended_losses,
        GBlendingSettings,
        head=_own_heads,
        check=_check_g_blending,
    ),
    "greedy": Method(
        "FedAvg with Greedy: gated branches balanced by conditional learning speed; needs "
        "local_epochs >= 2 to re-balance",
        "h = relu(Σ_m U_m z_m + c), z'_m = z_m * sigmoid(V_m h + c_m);  logits = mean_m(W_m z'_m "
        "+ b_m), F_k = Σ_m CE(W_m z'_m + b_m)\n"
        "v_m = log10(B_m / E_m), sums of ||grad||²/||θ||² of gate (U, c, V_m, c_m) and branch\n"
        "from the second local epoch: if max v - min v > eps, the gate of argmax v is its running "
        "mean for q steps",
        "gates and their running means with the head: 16 (Σ_m D_m)² / ratio bytes more each way, 4 "
        "MiB for two conv4; nothing is kept",
        "Wu et al., ICML 2022, arXiv:2202.05306; one MMTM on pooled features; a client that lacks "
        "modalities gates what it has, one with a single modality has nothing to balance",
        fedavg,
        _greedy,
        GreedySettings,
        head=_mmtm,
    ),
}
