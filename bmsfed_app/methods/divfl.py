"""DivFL (Balakrishnan et al., ICLR 2022), and with modal enhancement."""

from __future__ import annotations

from typing import Any

from bmsfed_app.methods.base import METHODS
from bmsfed_app.methods.shared import EnhancementSettings, GradientSettings
from strategies import DivFL, ModalityStrategy

_COVER = (
    "n times: S <- S ∪ {argmin_i Σ_k min(min_{j∈S} ||g_k - g_j||, ||g_k - g_i||)}, i from a random "
    "set of unselected clients (Eqs. 2-4)\ng_k: CE gradient of all encoders at the received model"
)


@METHODS.register("divfl")
class DivFLSettings(GradientSettings):
    """DivFL."""

    summary = "diverse clients: facility location on gradients, stochastic greedy"
    equations = _COVER + "\nF_k = CE"
    travels = "a signature up (16 KiB); the server keeps one per client"
    source = "Balakrishnan et al., ICLR 2022, no-overheads variant"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Select by gradients."""
        return DivFL(**self.selection(), **common)


@METHODS.register("divfl-me")
class EnhancedDivFLSettings(EnhancementSettings, DivFLSettings):
    """DivFL with modal enhancement."""

    summary = "DivFL with modal enhancement by global prototypes"
    equations = _COVER + "\nF_k = CE + coef(ρ) ME(weak)   (Eqs. 7-9, 19)"
    travels = "a signature up (16 KiB), prototypes both ways; the server keeps them for each client"
    source = "BMSFed paper, Table 4"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Send prototypes along."""
        return DivFL(**self.selection(), share_prototypes=True, **common)
