"""BMSFed (Fan et al., ECCV 2024), its variants, and the control that draws clients at random."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Named, field
from bmsfed_app.methods.shared import EnhancementSettings, GradientSettings
from strategies import BMSFed, ModalityStrategy, RandomModality
from strategies.bmsfed import (
    PICK,
    PROTOTYPE_SCOPE,
    THRESHOLD,
    UNI_COVER,
    UNI_RATIO,
    PickRule,
    PrototypeScope,
    UniCover,
    UniRatio,
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


@METHODS.register("bmsfed")
class BMSFedSettings(EnhancementSettings, GradientSettings):
    """BMSFed; settings go by the paper's symbols where it has them."""

    summary = "balanced modality selection with modal enhancement, as the paper has it"
    equations = _EQUATIONS
    travels = _TRAVELS
    source = _PAPER
    core: ClassVar[type[BMSFed]] = BMSFed

    chi: float = field(THRESHOLD, "χ of Eq. 13: uni-modal above this ratio")
    ratio: Literal["score", "accuracy"] = Field(
        "score", description="imbalance from prototype scores (Eq. 16) or nearest-prototype hits"
    )
    pick: PickRule = field(PICK, "clients per greedy step")
    uni_cover: UniCover = field(
        UNI_COVER, "who covers the second function: all picks, or uni-modal ones"
    )
    uni_ratio: UniRatio = field(
        UNI_RATIO, "ratio of a client that trained alone: its last, or from latest scores"
    )
    prototype_scope: PrototypeScope = field(
        PROTOTYPE_SCOPE, "global prototypes from all clients' latest, or this round's"
    )

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Select modalities of clients."""
        return self.core(**self.options(), **common)

    def options(self) -> dict[str, Any]:
        """Return what the strategy is built with, but for what all strategies take."""
        own = self.model_dump(include={"pick", "uni_cover", "uni_ratio", "prototype_scope"})
        return {"threshold": self.chi, **self.selection(), **own}

    def ratio_kind(self) -> str:
        """As set."""
        return self.ratio


@METHODS.register("bmsfed-local")
class BMSFedLocalSettings(BMSFedSettings):
    """BMSFed with local prototypes."""

    summary = "BMSFed with modal enhancement by each client's own prototypes"
    equations = _EQUATIONS + "\nc: the client's own prototypes at the received model"
    travels = _TRAVELS.replace("both ways", "up")
    source = f"{_PAPER}, Table 4"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Send no prototypes down."""
        return super().strategy(send_prototypes=False, **common)

    def objective(self) -> Named:
        """Modal enhancement by own prototypes."""
        name, values = super().objective()
        return name, values | {"prototypes": "local"}


@METHODS.register("bmsfed-release")
class BMSFedReleaseSettings(BMSFedSettings):
    """BMSFed of the published code."""

    summary = "BMSFed by the rules of the authors' published code"
    source = f"{_PAPER}, published code (its rules, not its bugs)"
    presets: ClassVar = {
        "coefficient": "constant",
        "uni_enhancement": "always",
        "ratio": "accuracy",
        "gradient": "update",
        "pick": "single",
        "uni_cover": "uni",
        "uni_ratio": "refresh",
        "prototype_scope": "selected",
        "head_columns": "all",
    }
    overrides: ClassVar = {"prototypes": "test"}


@METHODS.register("random-modality")
class RandomModalitySettings(BMSFedSettings):
    """BMSFed's control."""

    summary = "control: as many uni-modal clients as BMSFed would select, all drawn at random"
    equations = (
        "|S_M|, |S_I| by BMSFed's selection; S_I uniform among the weak modality's holders, S_M "
        "uniform among the rest\nF_k = CE + coef(ρ) ME(weak)   (Eqs. 7-9, 19)"
    )
    source = "ours: does it matter which client trains alone, beyond how many do?"
    core = RandomModality
