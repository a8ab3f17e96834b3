"""PmcmFL."""

from __future__ import annotations

from typing import Any, ClassVar

from bmsfed_app.methods.base import METHODS, MethodSettings, Named
from strategies import ModalityStrategy, PmcmFL


@METHODS.register("pmcmfl")
class PmcmFLSettings(MethodSettings):
    """PmcmFL."""

    summary = "missing features are filled by prototypes, in training and at test"
    equations = (
        "training: z_m <- c_m,y where a client, or a sample, lacks m; c: global prototypes, no "
        "gradient\n"
        "to them, zero where there is none yet;  F_k = CE of the filled logits\n"
        "test: logit_c += Σ W_m,c · c_m,c over the missing m, a constant per class\n"
        "a client that lacks m trains W_m too; W_m is averaged over all that trained it\n"
        "what is filled in tells the label: with uni_weight, losses that it is no part of\n"
        "nothing missing: FedAvg"
    )
    travels = (
        "prototypes both ways, of all modalities down; head columns of the modalities that a "
        "client lacks, both ways, once they have prototypes; the server keeps each client's "
        "prototypes"
    )
    source = (
        "PmcmFL (github.com/Noirebao/Multimodal_Federated) without its contrastive terms; the "
        "rule at test and Eq. 15's prototypes, of all samples, are ours"
    )
    binds: ClassVar = {"head": "prototypes go through the columns of a linear head"}

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Send prototypes of all modalities, and the columns that they go through."""
        return PmcmFL(head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """Cross-entropy with missing features filled."""
        return "prototype_fill", {}
