"""MFedMC (Yuan et al., 2024): modalities and clients selected jointly."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from bmsfed_app.methods.base import METHODS, Experiment, MethodSettings, Named, field
from strategies import MFedMC, ModalityStrategy
from strategies.mfedmc import (
    CONTRIBUTION_WEIGHT,
    DELTA,
    GAMMA,
    PREFER,
    RECENCY_WEIGHT,
    SIZE_WEIGHT,
    PersonalMFedMC,
    Prefer,
    weights_fault,
)
from strategies.selection.measuring import MEASURE_PER_ROUND


@METHODS.register("mfedmc")
class MFedMCSettings(MethodSettings):
    """MFedMC."""

    summary = (
        "joint selection: the clients of largest loss train, of what they hold, the modalities "
        "that matter most"
    )
    equations = (
        "φ_m = Σ_i Σ_c |W_m (z_m,i - mean z_m)|_c: exact Shapley value of a linear head, at most "
        "50 drawn samples\n"
        "P_m = a_s φ~_m + a_c (1 - size~_m) + a_r (t - last_m) / (t + 1), over what the client "
        "holds; ~: scaled to [0, 1]; a: the three weights; last: -1 before\n"
        "the per_round clients (or a share delta) of largest mean CE_m train the gamma modalities "
        "of largest P each:  F_k = Σ_m CE_m, CE_m of W_m z_m + b; nothing of all together "
        "(uni_weight w: 1 + w times that where several are trained)\n"
        "tested: the head with all modalities; or W_m, b of each client after one epoch of F_k on "
        "the features of the received encoders"
    )
    travels = (
        "γ encoders each way in place of all held; all of them once, to measure a client; 8 bytes "
        "by modality up; the server keeps 3 numbers by client and modality, own heads if tested"
    )
    source = (
        "Yuan et al., arXiv:2401.16685, and their code (bb99072). There all clients train all they "
        "hold and most of it is dropped, averages are unweighted, heads are random forests on "
        "predicted labels of all modalities, refitted by every client every round; here selection "
        "precedes training, by last known φ and CE, averages are by samples, and a client's own "
        "head is fitted column by column where it trains"
    )

    binds: ClassVar = {"head": "it reads each modality's share off a linear head"}

    gamma: int = field(GAMMA, "γ: modalities that a client trains; who holds fewer trains all")
    delta: float = field(
        DELTA, "δ: share of the connected clients that train; 0: the experiment's per_round"
    )
    prefer: Prefer = field(PREFER, "clients of high loss, or of low (another version of the code)")
    contribution_weight: float = field(CONTRIBUTION_WEIGHT, "a_s: weight of φ")
    size_weight: float = field(SIZE_WEIGHT, "a_c: weight of what need not travel")
    recency_weight: float = field(RECENCY_WEIGHT, "a_r: weight of rounds since it was trained")
    measure_per_round: int = field(
        MEASURE_PER_ROUND,
        "newcomers measured a round at most, and selectable then; 0 = twice those that train, at "
        "least 100",
    )
    tested: Literal["fused", "own"] = Field(
        "fused", description="accuracy of the global head, or mean of the clients' own heads"
    )
    head_lr: float = Field(
        0.1, gt=0, le=10, description="learning rate of a client's own head, where it is tested"
    )

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Select modalities and clients."""
        made = PersonalMFedMC if self.tested == "own" else MFedMC
        beside = {*set(MethodSettings.model_fields) - {"head_columns"}, "tested", "head_lr"}
        return made(**self.model_dump(exclude=beside), **common)

    def objective(self) -> Named:
        """Each modality's loss; and a head of the client's own, where it is tested."""
        return "separate", {"head_lr": self.head_lr if self.tested == "own" else 0.0}

    def check(self, config: Experiment) -> str | None:
        """Ask for a weight."""
        return weights_fault(self.contribution_weight, self.size_weight, self.recency_weight)
