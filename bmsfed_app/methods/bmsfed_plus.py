"""BMSFed at its strongest, and what it is measured by."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Named, field
from bmsfed_app.methods.bmsfed import BMSFedSettings
from strategies import BMSFedPlus, ModalityStrategy
from strategies.bmsfed_plus import GENERALISES, RandomBMSFedPlus


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
        "trusted: H_weak >= generalises A_weak, accuracies of W_weak z_weak + b at the received "
        "model on samples held out and trained on; otherwise ε = coef = 0 and S_I is empty"
    )
    travels = (
        "as bmsfed, and 32 bytes by modality up; the server keeps 5 numbers by modality besides"
    )
    source = "ours, after Fan et al., ECCV 2024; held-out samples: Wang et al., CVPR 2020"
    presets: ClassVar = {"chi": 1.0, "coefficient": "constant", "uni_weight": 1.0}

    smoothing: float = Field(
        0.3, ge=0, lt=1, description="ε: label smoothing of strong modalities' own losses"
    )
    generalises: float = field(
        GENERALISES, "least share of its training accuracy that a trusted modality keeps held out"
    )
    holdout: float = Field(
        0.1, ge=0, le=0.5, description="share of a client's samples held out of its training"
    )
    select: Literal["balanced", "random"] = Field(
        "balanced", description="clients by BMSFed, or as many of each kind at random (a control)"
    )

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Select modalities of clients, and watch the weak one."""
        core = RandomBMSFedPlus if self.select == "random" else BMSFedPlus
        return core(generalises=self.generalises, **self.options(), **common)

    def objective(self) -> Named:
        """Hold strong modalities back."""
        _, values = super().objective()
        return "hold_back", values | self.model_dump(include={"smoothing", "holdout"})
