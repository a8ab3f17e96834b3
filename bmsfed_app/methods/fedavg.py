"""FedAvg (McMahan et al., AISTATS 2017), with dropped modalities, and with modal enhancement."""

from __future__ import annotations

from typing import Any

from bmsfed_app.methods.base import METHODS, MethodSettings, field
from bmsfed_app.methods.shared import EnhancementSettings
from strategies import FedAvg, ModalityDropout, ModalityStrategy
from strategies.modality_dropout import DROP


@METHODS.register("fedavg")
class FedAvgSettings(MethodSettings):
    """FedAvg."""

    summary = "random clients train all they hold, averages by sample counts"
    equations = (
        "θ_m = Σ_k q_k θ_m,k over the clients that trained part m, q_k = n_k / Σ n\nF_k = CE\n"
        "of samples that lack modalities, a part of m counts those that have m: n_k,m (sent)"
    )
    source = "McMahan et al., AISTATS 2017, Algorithm 1"


@METHODS.register("fedavg-x")
class DropoutSettings(MethodSettings):
    """FedAvg-x."""

    summary = (
        "FedAvg whose clients leave out a random modality with probability x, anew each round; "
        "any number for x"
    )
    equations = (
        "with probability x, client k leaves out one of the modalities it holds, never the last\n"
        "F_k = CE of what is left"
    )
    travels = "fewer parts"
    source = "BMSFed paper, Tables 1, 4, 8"
    number = "drop"

    drop: float = field(DROP, "x: probability that a client leaves out one modality")

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Draw what is left out anew each round."""
        return ModalityDropout(drop=self.drop, head_columns=self.head_columns, **common)


@METHODS.register("fedavg-x-fix")
class FixedDropoutSettings(DropoutSettings):
    """FedAvg-x-fix."""

    summary = "the same, drawn once per client"
    equations = "as fedavg-x, drawn from (seed, client) only"
    source = "BMSFed paper, Table 8"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Draw what is left out once per client."""
        return super().strategy(fixed=True, **common)


@METHODS.register("fedavg-me")
class EnhancedFedAvgSettings(EnhancementSettings):
    """FedAvg with modal enhancement."""

    summary = "FedAvg with modal enhancement by global prototypes"
    equations = (
        "F_k = CE + coef(ρ) ME(weak modality of the batch)   (Eqs. 7-9, 19)\n"
        "round 1 is CE: there are no global prototypes yet"
    )
    travels = "prototypes both ways; the server keeps each client's prototypes and ratios"
    source = "BMSFed paper, Table 4"

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Send prototypes, the weak modality and ratios along."""
        return FedAvg(head_columns=self.head_columns, share_prototypes=True, **common)
