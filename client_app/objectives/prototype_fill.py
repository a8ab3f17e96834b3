"""Cross-entropy with missing features filled by the true class's prototypes (PmcmFL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import Output
from client_app.data import LocalData
from client_app.objectives.base import OBJECTIVES, Objective

#: Before a modality's name, in what a pack looks at of a client.
_FILL = "fill."


@OBJECTIVES.register("prototype_fill")
@dataclass
class PrototypeFill(Objective):
    """``F_k = CE`` of logits to which a missing modality m adds ``W_m c_m,y``.

    c_m,y is the server's prototype of the sample's own class, a constant; a class that has none,
    and any before the server knows prototypes, adds nothing. A modality is missing where the
    client lacks it, or the sample. Where nothing is missing, this is cross-entropy.

    Source: https://github.com/Noirebao/Multimodal_Federated, ``src/algorithm``.
    """

    packs: ClassVar[bool] = True

    #: What stands for the features, (K, D) by modality; zero rows for classes without prototype.
    fills: dict[str, Tensor] = field(default_factory=dict, init=False)

    def on_start(self, data: LocalData) -> None:
        """Take the server's prototypes, in the network's order: sums depend on it."""
        known = self.context.global_prototypes
        self.fills = {
            m: known[m].means.masked_fill(~known[m].present[:, None], 0.0)
            for m in self.network.spec.encoders
            if m in known
        }

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        return F.cross_entropy(self.filled(output, labels, self.fills), labels)

    def filled(self, output: Output, labels: Tensor, fills: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (B, K) with what is missing filled in.

        Parameters
        ----------
        output : Output
            Of the network; what is missing adds nothing to its logits.
        labels : Tensor (B,), int64
        fills : mapping
            Prototypes (K, D) by modality.
        """
        logits = output.logits
        for modality, prototypes in fills.items():
            there = output.present.get(modality)
            if modality in output.features and there is None:
                continue
            # One product per class, W_m c_m, serves all its samples.
            part = self.network.head.parts({modality: prototypes})[modality][labels]
            if there is not None:
                part = part.masked_fill(there[:, None], 0.0)
            logits = logits + part
        return logits

    def pack(self) -> dict[str, Tensor]:
        """Return the prototypes of the modalities that the client lacks."""
        there = self.network.modalities
        return {_FILL + m: means for m, means in self.fills.items() if m not in there}

    def packed_loss(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return the batch's loss."""
        fills = {n.removeprefix(_FILL): means for n, means in own.items() if n.startswith(_FILL)}
        return F.cross_entropy(self.filled(output, labels, fills), labels)

    def _with_uni(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add the uni-modal losses; one modality's alone is no loss where others are filled in."""
        weight = self.context.settings.uni_weight
        if weight == 0 or not set(self.fills) - set(output.parts):
            return super()._with_uni(loss, output, labels)
        return loss + weight * self.uni_losses(output, labels).sum()
