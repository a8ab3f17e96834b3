"""Methods that add a regulariser to the local loss: FedProx and FedProto."""

from __future__ import annotations

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, Named, fedavg, fedavg_with_prototypes


class ProximalSettings(MethodSettings):
    """Settings of FedProx."""

    mu: float = Field(1.0, ge=0, le=100, description="weight of the proximal term; keep lr·mu < 2")


class PrototypeSettings(MethodSettings):
    """Settings of FedProto."""

    lam: float = Field(1.0, ge=0, le=100, description="λ, weight of the distance to prototypes")


def _proximal(settings: ProximalSettings) -> Named:
    return "proximal", {"mu": settings.mu}


def _squared(settings: PrototypeSettings) -> Named:
    return "prototype_distance", {"lam": settings.lam, "distance": "squared"}


def _softmax(settings: PrototypeSettings) -> Named:
    return "prototype_distance", {"lam": settings.lam, "distance": "softmax"}


_PROTOTYPES = "prototypes both ways; the server keeps each client's"

METHODS = {
    "fedprox": Method(
        "FedAvg with a proximal term",
        "F_k = CE + (mu/2) ||w - w_t||² over the parts being trained",
        "nothing besides the parts",
        "Li et al., MLSys 2020; the BMSFed paper takes mu 1 to 2",
        fedavg,
        _proximal,
        ProximalSettings,
    ),
    "fedproto": Method(
        "FedAvg that pulls features towards global prototypes",
        "F_k = CE + λ Σ_m mean_i ||z_m - c_m,y||² / D, c: global prototypes",
        _PROTOTYPES,
        "Tan et al., AAAI 2022; models are averaged too",
        fedavg_with_prototypes,
        _squared,
        PrototypeSettings,
    ),
    "fedproto-release": Method(
        "FedProto as in the BMSFed authors' published code: softmax over distances",
        "F_k = CE + λ Σ_m mean_i -log softmax_j(-||z_m - c_m,j||)[y]",
        _PROTOTYPES,
        "BMSFed's published code",
        fedavg_with_prototypes,
        _softmax,
        PrototypeSettings,
    ),
}
