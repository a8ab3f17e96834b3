"""What the multi-modal network returns, with what samples lack.

Shape legend: B batch, K classes, D feature width of a modality, a modalities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Output:
    """What a network returns.

    Attributes
    ----------
    features : dict
        Features (B, D) by modality.
    logits : Tensor (B, K)
    parts : dict
        What each modality contributes to the logits, (B, K): see the head.
    present : dict
        By modality that samples lack: which rows have it, (B,) bool. The others' features and
        parts are zeros, through which no gradient goes.
    """

    features: dict[str, Tensor]
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)

    def of(self, modality: str, rows: Tensor) -> Tensor:
        """Return those of the batch's rows (B, ...) whose samples have a modality."""
        return rows if modality not in self.present else rows[self.present[modality]]

    def held(self) -> Tensor:
        """Return which samples have which modality, (a, B) bool, in the features' order."""
        everyone = torch.ones(len(self.logits), dtype=torch.bool, device=self.logits.device)
        return torch.stack([self.present.get(m, everyone) for m in self.features])
