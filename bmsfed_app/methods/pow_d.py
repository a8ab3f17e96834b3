"""Power-of-Choice, pow-d (Cho et al., AISTATS 2022)."""

from __future__ import annotations

from typing import Any

from bmsfed_app.methods.base import METHODS, Experiment, MethodSettings, field
from strategies import ModalityStrategy, PowerOfChoice
from strategies.pow_d import D


@METHODS.register("pow-d")
class PowerOfChoiceSettings(MethodSettings):
    """pow-d."""

    summary = "of d random clients, those with the largest loss train (Power-of-Choice)"
    equations = (
        "d clients uniformly; l_k = mean CE of the global model on client k's data; the n largest "
        "train\nF_k = CE"
    )
    travels = (
        "the model to d clients, 4 bytes back from each; nothing is kept; refuses clients that "
        "lack a modality"
    )
    source = "Cho et al., AISTATS 2022; drawn uniformly as in the BMSFed paper"

    d: int = field(D, "candidates per round, at least per_round; 0: half of all")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Ask d candidates for their losses."""
        return PowerOfChoice(d=self.d, head_columns=self.head_columns, **common)

    def check(self, config: Experiment) -> str | None:
        """Ask for enough candidates, and for clients that hold all modalities."""
        if self.d and config.per_round >= 1 and self.d < config.per_round:
            return f"d: {self.d} candidates for {config.per_round} clients per round; raise d"
        if self.d and config.clients and self.d > config.clients:
            return f"d: {self.d} candidates of {config.clients} clients; lower d"
        if config.whole_share < 1:
            return (
                f"whole_share: {config.whole_share:g}, but pow-d compares losses over all "
                "modalities, which every client must hold; set it to 1 or choose another method"
            )
        return None
