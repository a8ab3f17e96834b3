"""BMSFed, its variants, and the control that draws its clients at random."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, Named
from strategies import BMSFed, ModalityStrategy, RandomModality


class EnhancementSettings(MethodSettings):
    """Settings of modal enhancement, by the paper's symbols where it has them."""

    coefficient: Literal["clipped", "constant"] = Field(
        "clipped", description="weight of the enhancement loss: clip(ρ-1, 0, 1) (Eq. 19), constant"
    )
    coefficient_value: float = Field(1.0, ge=0, le=100, description="the constant weight")
    uni_enhancement: Literal["weak", "always"] = Field(
        "weak", description="uni-modal clients are enhanced in the weak modality only, or always"
    )
    head_weight: float = Field(
        0.0, ge=0, le=100, description="weight of a cross-entropy through the weak head columns"
    )


class SignatureSettings(MethodSettings):
    """Settings of methods that compare clients by gradients."""

    gradient: Literal["decoupled", "update"] = Field(
        "decoupled", description="signatures: gradients at the received model, or its change"
    )
    sketch_dim: int = Field(4096, ge=0, le=10_000_000, description="sketch size; 0 = exact")
    probe_batches: int = Field(1, ge=1, le=100_000, description="mini-batches behind a signature")
    cover_sample: int = Field(5000, ge=1, description="clients the functions sum over at most")


class BMSFedSettings(EnhancementSettings, SignatureSettings):
    """Settings of BMSFed, by the paper's symbols where it has them."""

    chi: float = Field(1.2, ge=0, le=100, description="χ of Eq. 13: uni-modal above this ratio")
    ratio: Literal["score", "accuracy"] = Field(
        "score", description="imbalance from prototype scores (Eq. 16) or nearest-prototype hits"
    )
    pick: Literal["pair", "single"] = Field("pair", description="clients per greedy step")
    uni_cover: Literal["shared", "uni"] = Field(
        "shared", description="who covers the second function: all picks, or uni-modal ones"
    )
    uni_ratio: Literal["keep", "refresh"] = Field(
        "keep", description="ratio of a client that trained alone: its last, or from latest scores"
    )
    prototype_scope: Literal["all", "selected"] = Field(
        "all", description="global prototypes from all clients' latest, or this round's"
    )


def signature_arguments(settings: SignatureSettings) -> dict[str, Any]:
    """Return what a strategy that selects by signatures is built with."""
    return settings.model_dump(
        include={"gradient", "sketch_dim", "probe_batches", "cover_sample", "head_columns"}
    )


def modal_enhancement(settings: EnhancementSettings) -> Named:
    """Return cross-entropy with modal enhancement by global prototypes."""
    keys = {"coefficient", "coefficient_value", "uni_enhancement", "head_weight"}
    return "modal_enhancement", settings.model_dump(include=keys)


def _local_enhancement(settings: EnhancementSettings) -> Named:
    name, values = modal_enhancement(settings)
    return name, values | {"prototypes": "local"}


def _bmsfed(settings: BMSFedSettings, common: dict[str, Any]) -> ModalityStrategy:
    return BMSFed(**_arguments(settings), **common)


def _random_modality(settings: BMSFedSettings, common: dict[str, Any]) -> ModalityStrategy:
    return RandomModality(**_arguments(settings), **common)


def _bmsfed_local(settings: BMSFedSettings, common: dict[str, Any]) -> ModalityStrategy:
    return BMSFed(**_arguments(settings), send_prototypes=False, **common)


def _arguments(settings: BMSFedSettings) -> dict[str, Any]:
    own = {"pick", "uni_cover", "uni_ratio", "prototype_scope"}
    return (
        signature_arguments(settings)
        | settings.model_dump(include=own)
        | {"threshold": settings.chi}
    )


_EQUATIONS = (
    "G(S_M) = Σ_k min_{i∈S_M} ||g^M_k - g^M_i||;  "
    "G(S_M ∪ S_I) = Σ_k min_{i∈S_M∪S_I} ||g^W_k - g^W_i||   (Eqs. 10, 11)\n"
    "k1* = argmin G(S_M ∪ {k}), k2* = argmin G(S_M ∪ S_I ∪ {k}) over random candidates (Eq. 12)\n"
    "k1* = k2* joins S_M; else k2* trains the weak modality alone if ρ > χ (Eq. 13)\n"
    "F_k = CE + coef(ρ) ME(weak), ME = -log softmax_j(-||z - c_j||)[y]   (Eqs. 7-9, 19)"
)
_TRAVELS = (
    "prototypes both ways; signatures up (16 KiB per vector); uni-modal clients fewer parts; the "
    "server keeps signatures, prototypes, ratios of each client"
)
_PAPER = "Fan et al., ECCV 2024, arXiv:2401.00403"

METHODS = {
    "bmsfed": Method(
        "balanced modality selection with modal enhancement, as the paper has it",
        _EQUATIONS,
        _TRAVELS,
        _PAPER,
        _bmsfed,
        modal_enhancement,
        BMSFedSettings,
    ),
    "bmsfed-plus": Method(
        "BMSFed with χ 1, constant coefficient, features of norm 10: its strongest at small lr",
        _EQUATIONS + "\nz <- 10 z / ||z|| before head and prototypes",
        _TRAVELS,
        f"{_PAPER}; the scaled features are ours",
        _bmsfed,
        modal_enhancement,
        BMSFedSettings,
        presets={"chi": 1.0, "coefficient": "constant"},
        config={"feature_norm": 10.0},
    ),
    "bmsfed-local": Method(
        "BMSFed with modal enhancement by each client's own prototypes",
        _EQUATIONS + "\nc: the client's own prototypes at the received model",
        _TRAVELS.replace("both ways", "up"),
        f"{_PAPER}, Table 4",
        _bmsfed_local,
        _local_enhancement,
        BMSFedSettings,
    ),
    "bmsfed-release": Method(
        "BMSFed by the rules of the authors' published code",
        _EQUATIONS,
        _TRAVELS,
        f"{_PAPER}, published code (its rules, not its bugs)",
        _bmsfed,
        modal_enhancement,
        BMSFedSettings,
        presets={
            "coefficient": "constant",
            "uni_enhancement": "always",
            "ratio": "accuracy",
            "gradient": "update",
            "pick": "single",
            "uni_cover": "uni",
            "uni_ratio": "refresh",
            "prototype_scope": "selected",
            "head_columns": "all",
        },
        config={"prototypes": "test"},
    ),
    "random-modality": Method(
        "control: as many uni-modal clients as BMSFed would select, all drawn at random",
        "|S_M|, |S_I| by BMSFed's selection; S_I uniform among the weak modality's holders, S_M "
        "uniform among the rest\nF_k = CE + coef(ρ) ME(weak)   (Eqs. 7-9, 19)",
        _TRAVELS,
        "ours: does it matter which client trains alone, beyond how many do?",
        _random_modality,
        modal_enhancement,
        BMSFedSettings,
    ),
}
