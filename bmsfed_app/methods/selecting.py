"""Methods that select whole clients: pow-d and DivFL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings
from bmsfed_app.methods.bmsfed import (
    EnhancementSettings,
    SignatureSettings,
    modal_enhancement,
    signature_arguments,
)
from strategies import DivFL, ModalityStrategy, PowerOfChoice

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig


class PowerOfChoiceSettings(MethodSettings):
    """Settings of pow-d."""

    d: int = Field(0, ge=0, description="candidates per round, at least per_round; 0: half of all")


class EnhancedDivFLSettings(EnhancementSettings, SignatureSettings):
    """Settings of DivFL with modal enhancement."""


def _pow_d(settings: PowerOfChoiceSettings, common: dict[str, Any]) -> ModalityStrategy:
    return PowerOfChoice(d=settings.d, head_columns=settings.head_columns, **common)


def _check_pow_d(settings: PowerOfChoiceSettings, config: ExperimentConfig) -> str | None:
    if settings.d and config.per_round >= 1 and settings.d < config.per_round:
        return f"d: {settings.d} candidates for {config.per_round} clients per round; raise d"
    if settings.d and config.clients and settings.d > config.clients:
        return f"d: {settings.d} candidates of {config.clients} clients; lower d"
    if config.whole_share < 1:
        return (
            f"whole_share: {config.whole_share:g}, but pow-d compares losses over all modalities, "
            "which every client must hold; set it to 1 or choose another method"
        )
    return None


def _divfl(settings: SignatureSettings, common: dict[str, Any]) -> ModalityStrategy:
    return DivFL(**signature_arguments(settings), **common)


def _divfl_me(settings: EnhancedDivFLSettings, common: dict[str, Any]) -> ModalityStrategy:
    return DivFL(**signature_arguments(settings), share_prototypes=True, **common)


_COVER = (
    "n times: S <- S ∪ {argmin_i Σ_k min(min_{j∈S} ||g_k - g_j||, ||g_k - g_i||)}, i from a random "
    "set of unselected clients (Eqs. 2-4)\ng_k: CE gradient of all encoders at the received model"
)

METHODS = {
    "pow-d": Method(
        "of d random clients, those with the largest loss train (Power-of-Choice)",
        "d clients uniformly; l_k = mean CE of the global model on client k's data; the n largest "
        "train\nF_k = CE",
        "the model to d clients, 4 bytes back from each; nothing is kept; refuses clients that "
        "lack a modality",
        "Cho et al., AISTATS 2022; drawn uniformly as in the BMSFed paper",
        _pow_d,
        settings=PowerOfChoiceSettings,
        check=_check_pow_d,
    ),
    "divfl": Method(
        "diverse clients: facility location on gradients, stochastic greedy",
        _COVER + "\nF_k = CE",
        "a signature up (16 KiB); the server keeps one per client",
        "Balakrishnan et al., ICLR 2022, no-overheads variant",
        _divfl,
        settings=SignatureSettings,
    ),
    "divfl-me": Method(
        "DivFL with modal enhancement by global prototypes",
        _COVER + "\nF_k = CE + coef(ρ) ME(weak)   (Eqs. 7-9, 19)",
        "a signature up (16 KiB), prototypes both ways; the server keeps them for each client",
        "BMSFed paper, Table 4",
        _divfl_me,
        modal_enhancement,
        EnhancedDivFLSettings,
    ),
}
