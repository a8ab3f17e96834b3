"""PMR (Fan et al., CVPR 2023) at the clients of FedAvg."""

from __future__ import annotations

from bmsfed_app.methods.base import METHODS, Named
from bmsfed_app.methods.shared import ALONE, CoefficientSettings, ModulationSettings


@METHODS.register("fedpmr")
class FedPMRSettings(CoefficientSettings, ModulationSettings):
    """FedPMR."""

    summary = "FedAvg with PMR: modal enhancement by the client's own prototypes"
    equations = (
        "F_k = CE + coef(ρ) ME_w, w the batch's weakest modality; prototypes of the client's own "
        "data, anew each local epoch"
    )
    source = "Fan et al., CVPR 2023" + ALONE

    def objective(self) -> Named:
        """Cross-entropy with modal enhancement by own prototypes."""
        return "pmr", self.model_dump(include={"coefficient", "coefficient_value", "until"})
