"""FedAvg with uni-modal losses: what every selection of modalities has to beat."""

from __future__ import annotations

from typing import ClassVar

from bmsfed_app.methods.base import METHODS, MethodSettings


@METHODS.register("fedavg-uni")
class FedAvgUniSettings(MethodSettings):
    """FedAvg with a cross-entropy through each modality's own columns."""

    summary = "FedAvg with a cross-entropy through each modality's own columns of the head besides"
    equations = (
        "F_k = CE + γ Σ_m CE_m, CE_m of W_m z_m + b, the logits of a client that trains m alone\n"
        "γ: uni_weight, a setting of every method with a linear head; γ 0 is FedAvg; a client with "
        "one modality has CE alone"
    )
    source = (
        "auxiliary uni-modal losses, as the 'uniform baseline' of Wei and Hu, MMPareto, ICML 2024, "
        "which has heads of their own for them (g-blending with fixed weights)"
    )
    presets: ClassVar = {"uni_weight": 1.0}
