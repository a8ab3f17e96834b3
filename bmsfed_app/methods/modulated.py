"""Methods that slow the leading modality down or help the weak one locally: OGM-GE, PMR, AGM."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, Named, fedavg
from strategies import AGM, ModalityStrategy


class ModulationSettings(MethodSettings):
    """Settings that these methods share."""

    until: float = Field(0.4, ge=0, le=1, description="share of the rounds in which it acts")


class OgmSettings(ModulationSettings):
    """Settings of OGM-GE."""

    alpha: float = Field(0.8, ge=0, le=100, description="strength; official 0.8, on CG data 0.2")
    noise: bool = Field(True, description="add the noise of generalisation enhancement")


class PmrSettings(ModulationSettings):
    """Settings of PMR."""

    coefficient: Literal["clipped", "constant"] = Field(
        "clipped", description="weight of the enhancement loss: clip(ρ-1, 0, 1) (Eq. 19), constant"
    )
    coefficient_value: float = Field(1.0, ge=0, le=100, description="the constant weight")


class AgmSettings(ModulationSettings):
    """Settings of AGM."""

    alpha: float = Field(1.0, ge=0, le=100, description="strength; official 1")


def _ogm(settings: OgmSettings) -> Named:
    return "ogm_ge", settings.model_dump(include={"alpha", "noise", "until"})


def _pmr(settings: PmrSettings) -> Named:
    return "pmr", settings.model_dump(include={"coefficient", "coefficient_value", "until"})


def _agm_objective(settings: AgmSettings) -> Named:
    return "agm", settings.model_dump(include={"alpha", "until"})


def _agm(settings: AgmSettings, common: dict[str, Any]) -> ModalityStrategy:
    return AGM(head_columns=settings.head_columns, **common)


_ALONE = "; a client with one modality trains by plain CE"

METHODS = {
    "fedogm": Method(
        "FedAvg with OGM-GE: the leading modality's encoder gradient is scaled down",
        "s_m = Σ_i softmax(W_m z_m + b/a)[y], ρ_m = s_m / mean of the others\n"
        "k_m = 1 - tanh(alpha ρ_m) if ρ_m > 1, else 1;  g_m <- k_m g_m + N(0, std(g_m)²)",
        "nothing besides the parts",
        "Peng et al., CVPR 2022" + _ALONE,
        fedavg,
        _ogm,
        OgmSettings,
    ),
    "fedpmr": Method(
        "FedAvg with PMR: modal enhancement by the client's own prototypes",
        "F_k = CE + coef(ρ) ME_w, w the batch's weakest modality; prototypes of the client's own "
        "data, anew each local epoch",
        "nothing besides the parts",
        "Fan et al., CVPR 2023" + _ALONE,
        fedavg,
        _pmr,
        PmrSettings,
    ),
    "agm": Method(
        "FedAvg with AGM: gradients scaled by each modality's lead against its history",
        "φ_m = W_m z_m + b/a (Shapley value), s_m = mean -log softmax(φ_m)[y]\n"
        "r_m = exp(mean_o(s_o - s_m)), τ_m the same of running means;  "
        "g_m <- exp(alpha min(τ_m - r_m, 10)) g_m",
        "K + 1 numbers both ways; the server keeps them for each client",
        "Li et al., ICCV 2023" + _ALONE,
        _agm,
        _agm_objective,
        AgmSettings,
    ),
}
