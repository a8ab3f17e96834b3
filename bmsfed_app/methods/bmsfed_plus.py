"""BMSFed at its strongest, and what it is measured by."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Named, field
from bmsfed_app.methods.bmsfed import BMSFedSettings
from strategies import BMSFedPlus, ModalityStrategy
from strategies.bmsfed_plus import TRUST_ABOVE, RandomBMSFedPlus


@METHODS.register("bmsfed-plus")
class BMSFedPlusSettings(BMSFedSettings):
    """BMSFed at its strongest.

    With one default for every data set. While the weak modality is not trusted it is ``fedavg-uni``
    with BMSFed's choice of clients.
    """

    summary = (
        "BMSFed with uni-modal losses, strong ones smoothed while the weak modality is trusted"
    )
    equations = (
        "S_M, S_I as bmsfed;  weak = argmax_m Σ_t log ρ_m(t), over the rounds so far\n"
        "F_k = CE + γ [CE_weak + Σ_{m≠weak} CE^ε_m] + coef(ρ) ME(weak), CE_m of W_m z_m + b;  "
        "CE^ε: against (1-ε) onehot(y) + ε/K\n"
        "trusted: H_weak >= trust_above max_m H_m, accuracies of W_m z_m + b at the received model "
        "on held-out samples; otherwise ε = coef = 0 and S_I is empty"
    )
    travels = (
        "as bmsfed, and in the first half of the rounds 16 bytes by modality up; the server keeps "
        "3 numbers by modality besides"
    )
    source = "ours, after Fan et al., ECCV 2024; held-out samples: Wang et al., CVPR 2020"
    presets: ClassVar = {"chi": 1.0, "coefficient": "constant", "uni_weight": 1.0}

    smoothing: float = Field(
        0.3, ge=0, lt=1, description="ε: label smoothing of strong modalities' own losses"
    )
    trust_above: float = field(
        TRUST_ABOVE, "least share of the best modality's held-out accuracy for a trusted one"
    )
    holdout: float = Field(
        0.1, ge=0, le=0.5, description="share of a client's samples held out of its training"
    )
    holdout_until: float = Field(
        0.5, ge=0, le=1, description="share of the rounds in which samples are held out"
    )
    select: Literal["balanced", "random"] = Field(
        "balanced", description="clients by BMSFed, or as many of each kind at random (a control)"
    )

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Select modalities of clients, and watch the weak one."""
        core = RandomBMSFedPlus if self.select == "random" else BMSFedPlus
        return core(trust_above=self.trust_above, **self.options(), **common)

    def objective(self) -> Named:
        """Hold strong modalities back."""
        _, values = super().objective()
        return "hold_back", values | self.model_dump(
            include={"smoothing", "holdout", "holdout_until"}
        )
