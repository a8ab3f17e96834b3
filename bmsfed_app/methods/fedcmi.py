"""FedCMI (Fan et al. 2024), by BMSFed's author."""

from __future__ import annotations

from pydantic import Field

from bmsfed_app.methods.base import METHODS, MethodSettings, Named
from bmsfed_app.methods.shared import ALONE


@METHODS.register("fedcmi")
class FedCMISettings(MethodSettings):
    """FedCMI."""

    summary = (
        "FedAvg whose weaker modalities learn the leading one's answers beside their own, through "
        "a second projection"
    )
    equations = (
        "s_m = S_m z_m, i_m = I_m z_m;  logits = b + Σ_m W_m s_m, the mean of the i_m in the place "
        "of who is absent\n"
        "F_k = CE + 2 Σ_m CE(C_m s_m) + β KD + (mu/2) ||w - w_t||², KD from round 2 on\n"
        "KD = mean over m ≠ l of mean_i -softmax(C_l s_l / T_y) · log softmax(C_m i_m / T_y)\n"
        "l: largest Σ_i softmax(C_m s_m)[y] of the batch; it teaches as the received model has it\n"
        "T_c = 1 / (1 + 2 ln(r_c / mean r)) if r_c > mean r, else 1; r_c = p_l,c / p_m,c, mean "
        "probabilities of class c at the received model"
    )
    travels = (
        "S, I and C with their encoder, 2P(D + 1) + K(P + 1) numbers a modality, P the widest D: "
        "2.1 MB for D 512; all columns W to and from everybody; nothing is kept"
    )
    source = (
        "Fan et al. 2024, arXiv:2401.00894, and its code with --class_wise_t; more than two "
        "modalities, T by the batch's leader, widths that differ: ours" + ALONE
    )

    beta: float = Field(1.0, ge=0, le=10, description="β: weight of the distillation")
    mu: float = Field(
        0.0, ge=0, le=100, description="weight of the proximal term; the authors have 1 or none"
    )

    def objective(self) -> Named:
        """Own losses, distillation and the proximal term."""
        return "infiltration", self.model_dump(include={"beta", "mu"})

    def head(self) -> Named:
        """Two projections per modality."""
        return "infiltration", {}
