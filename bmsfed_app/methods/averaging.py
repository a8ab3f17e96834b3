"""Plain averaging: FedAvg, FedAvg with dropped modalities, FedAvg with ME, and no averaging."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bmsfed_app.methods.base import Method, MethodSettings, fedavg_with_prototypes
from bmsfed_app.methods.bmsfed import EnhancementSettings, modal_enhancement
from strategies import LocalTraining, ModalityDropout, ModalityStrategy


class DropoutSettings(MethodSettings):
    """Settings of FedAvg-x."""

    drop: float = Field(
        0.5, ge=0, le=1, description="x: probability that a client leaves out one modality"
    )


def _dropout(settings: DropoutSettings, common: dict[str, Any]) -> ModalityStrategy:
    return ModalityDropout(drop=settings.drop, head_columns=settings.head_columns, **common)


def _fixed_dropout(settings: DropoutSettings, common: dict[str, Any]) -> ModalityStrategy:
    columns = settings.head_columns
    return ModalityDropout(drop=settings.drop, fixed=True, head_columns=columns, **common)


def _local(settings: MethodSettings, common: dict[str, Any]) -> ModalityStrategy:
    return LocalTraining(head_columns=settings.head_columns, **common)


METHODS = {
    "fedavg": Method(
        "random clients train all they hold, averages by sample counts",
        "θ_m = Σ_k q_k θ_m,k over the clients that trained part m, q_k = n_k / Σ n\nF_k = CE",
        "nothing besides the parts",
        "McMahan et al., AISTATS 2017, Algorithm 1",
    ),
    "fedavg-x": Method(
        "FedAvg whose clients leave out a random modality with probability x, anew each round; "
        "any number for x",
        "with probability x, client k leaves out one of the modalities it holds, never the last\n"
        "F_k = CE of what is left",
        "fewer parts",
        "BMSFed paper, Tables 1, 4, 8",
        _dropout,
        settings=DropoutSettings,
        number="drop",
    ),
    "fedavg-x-fix": Method(
        "the same, drawn once per client",
        "as fedavg-x, drawn from (seed, client) only",
        "fewer parts",
        "BMSFed paper, Table 8",
        _fixed_dropout,
        settings=DropoutSettings,
        number="drop",
    ),
    "fedavg-me": Method(
        "FedAvg with modal enhancement by global prototypes",
        "F_k = CE + coef(ρ) ME(weak modality of the batch)   (Eqs. 7-9, 19)\n"
        "round 1 is CE: there are no global prototypes yet",
        "prototypes both ways; the server keeps each client's prototypes and ratios",
        "BMSFed paper, Table 4",
        fedavg_with_prototypes,
        modal_enhancement,
        EnhancementSettings,
    ),
    "local": Method(
        "no aggregation: every client trains alone; mean of their test accuracies",
        "θ_k <- local training from θ_k;  accuracy = Σ_k q_k accuracy(θ_k) over all clients",
        "a client's own model both ways; the server keeps one model per client",
        "BMSFed paper, Table 1; clients take turns as FedAvg draws them",
        _local,
    ),
}
