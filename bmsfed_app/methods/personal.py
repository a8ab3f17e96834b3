"""Methods whose server treats clients differently: FedMSplit, FedNH and FedPAC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, Named
from strategies import FedMSplit, FedNH, FedPAC, ModalityStrategy

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig


class FedMSplitSettings(MethodSettings):
    """Settings of FedMSplit."""

    gamma: float = Field(0.9, ge=0, le=1, description="γ: a client's own share; 1: plain averages")
    mu: float = Field(0.02, ge=0, le=100, description="μ: weight of the proximal term")


class FedNHSettings(MethodSettings):
    """Settings of FedNH."""

    rho: float = Field(0.9, ge=0, le=1, description="ρ: how much of the class directions stays")
    scale: float = Field(1.0, gt=0, le=1000, description="s: initial scale of the cosines, learnt")


class FedPACSettings(MethodSettings):
    """Settings of FedPAC."""

    lam: float = Field(1.0, ge=0, le=100, description="λ: weight of the distance to prototypes")
    head_lr: float = Field(0.1, gt=0, le=10, description="learning rate of the head's own epoch")


def _fedmsplit(settings: FedMSplitSettings, common: dict[str, Any]) -> ModalityStrategy:
    return FedMSplit(gamma=settings.gamma, head_columns=settings.head_columns, **common)


def _proximal(settings: FedMSplitSettings) -> Named:
    return "proximal", {"mu": settings.mu}


def _fednh(settings: FedNHSettings, common: dict[str, Any]) -> ModalityStrategy:
    return FedNH(rho=settings.rho, head_columns=settings.head_columns, **common)


def _frozen_head(settings: FedNHSettings) -> Named:
    return "frozen_head", {}


def _cosine(settings: FedNHSettings) -> Named:
    return "cosine", {"scale": settings.scale}


def _check_fednh(settings: FedNHSettings, config: ExperimentConfig) -> str | None:
    spec = config.network_spec()
    width = sum(spec.width(m) for m in spec.encoders)
    if spec.num_classes > width:
        return (
            f"needs orthogonal class directions, but the encoders give {width} features for "
            f"{spec.num_classes} classes; choose wider encoders"
        )
    return None


def _fedpac(settings: FedPACSettings, common: dict[str, Any]) -> ModalityStrategy:
    return FedPAC(head_columns=settings.head_columns, **common)


def _feature_alignment(settings: FedPACSettings) -> Named:
    return "feature_alignment", settings.model_dump(include={"lam", "head_lr"})


METHODS = {
    "fedmsplit": Method(
        "blocks averaged by attention between clients that learn alike",
        "A_p = rowsoftmax(cos(u_k, u_l)), u: change of block p (each encoder, the head)\n"
        "e_kl = Σ_p A_p[k,l] / (1 + shared modalities);  r_p = A_p e, rows to sum 1\n"
        "θ_p = Σ_k q_k (γ θ_k + (1-γ) Σ_l r_kl θ_l)\n"
        "F_k = CE + μ/2 ||θ - θ_received||²\n"
        "a client that lacks a modality is not in that block's graph",
        "nothing besides the parts; nothing is kept",
        "Chen and Zhang, KDD 2022; one global model, cosines of changes, γ as the own share: ours",
        _fedmsplit,
        _proximal,
        FedMSplitSettings,
    ),
    "fednh": Method(
        "a cosine head whose class directions only the server moves, after class prototypes",
        "logits_c = s cos(z, W_c);  F_k = CE with W frozen, rows orthonormal at first\n"
        "p_kc = unit(mean z / ||z||);  P_c = unit(Σ_k n_kc p_kc / Σ_k n_kc)\n"
        "W_c <- unit(ρ W_c + (1-ρ) P_c); a class nobody has keeps W_c\n"
        "a client that lacks a modality: cosines and p over the blocks it has; P's blocks are "
        "means over their holders",
        "class directions up in place of the head's weights, and class counts; nothing is kept",
        "Dai et al., AAAI 2023, arXiv:2212.02758; bodies averaged by samples; blocks: ours",
        _fednh,
        _frozen_head,
        FedNHSettings,
        _cosine,
        config={"clip_norm": 10.0},
        check=_check_fednh,
    ),
    "fedpac": Method(
        "features aligned to global prototypes, and a personal mixture of heads",
        "one epoch of the head on the received features, then the encoders by\n"
        "F_k = CE + λ Σ_m mean((z_m - c_m,y)²), c: global prototypes, from round 2 on\n"
        "h_kc = share · mean of class c, V_k = (E||z||² - Σ_c ||h_kc||²) / n_k, per modality\n"
        "head_i = Σ_j α_ij head_j, α_i = argmin Σ_j α_j² V_j + ||h_i - Σ_j α_j h_j||², Σ α = 1, "
        "α >= 0\n"
        "a client that lacks a modality: α among each block's trainers, the bias by their mean",
        "prototypes both ways, h (as large as prototypes) and V up; the server keeps one head per "
        "client",
        "Xu et al., ICLR 2023, arXiv:2306.11867; tested with the mean of the heads that came in",
        _fedpac,
        _feature_alignment,
        FedPACSettings,
    ),
}
