"""Private heads (BLOSSOM)."""

from __future__ import annotations

from typing import Any, ClassVar

from bmsfed_app.methods.base import METHODS, MethodSettings
from strategies import ModalityStrategy, PrivateHead


@METHODS.register("private-head")
class PrivateHeadSettings(MethodSettings):
    """Private heads."""

    summary = "encoders are averaged, heads stay with their clients"
    equations = (
        "θ_m = Σ_k q_k θ_m,k over the clients that trained encoder m, q_k = n_k / Σ n\n"
        "head_k <- local training from head_k;  global head = Σ_k q_k head_k of those that came "
        "in\n"
        "F_k = CE\n"
        "a client's first head is the global one; accuracy: the global model's\n"
        "accuracy_personal = Σ_k n_k Σ_c p_k(c) accuracy_c(θ of what k holds, head_k) / Σ_k n_k,\n"
        "p_k: k's shares of the classes, accuracy_c: on the test samples of class c"
    )
    travels = "a client's own head both ways in place of the global one; the server keeps them"
    source = (
        "BLOSSOM (github.com/DaSH-Lab-CSIS/blossom), private head and fusion; theirs tests on "
        "each client's own samples"
    )
    overrides: ClassVar = {"callbacks": {"personal": {}}}

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Keep heads by client."""
        return PrivateHead(head_columns=self.head_columns, **common)
