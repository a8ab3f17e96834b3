"""Fusion heads by name: each turns features by modality into logits.

A head's arrays are named ``<what>.<modality>`` where they belong to a modality, so that they travel
and are averaged with it, and ``<what>`` where all share them.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """Base class: features (B, D) by modality in, logits (B, K) out.

    A modality that is not there contributes nothing, as a zero block would.
    """

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each modality contributes to the logits, (B, K) each."""
        raise NotImplementedError

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Join contributions into logits (B, K)."""
        raise NotImplementedError

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (B, K) of features (B, D) by modality."""
        return self.fuse(self.parts(features))

    def reset(self, rng: torch.Generator) -> None:
        """Draw the initial weights."""
        raise NotImplementedError


class FusionHead(Head):
    """``logits = W · concat_m(z_m) + b``, with W kept as one block of columns per modality.

    The bias is used whole, whatever is missing. Arrays: ``weight.<modality>`` (K, D), ``bias``
    (K,).
    """

    def __init__(self, widths: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.weight = nn.ParameterDict(
            {m: nn.Parameter(torch.empty(num_classes, d)) for m, d in widths.items()}
        )
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``W_m z_m`` (B, K) by modality."""
        return {m: F.linear(z, self.weight[m]) for m, z in features.items()}

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the contributions and the bias."""
        logits: Tensor = self.bias
        for part in parts.values():
            logits = logits + part
        return logits

    def reset(self, rng: torch.Generator) -> None:
        """Xavier-normal, as one matrix over all modalities; bias 0."""
        _xavier_blocks(self.weight, rng)


def _xavier_blocks(blocks: nn.ParameterDict, rng: torch.Generator) -> None:
    """Fill blocks of columns as one Xavier-normal matrix."""
    widths = [b.shape[1] for b in blocks.values()]
    whole = torch.empty(next(iter(blocks.values())).shape[0], sum(widths))
    nn.init.xavier_normal_(whole, generator=rng)
    with torch.no_grad():
        for block, values in zip(blocks.values(), whole.split(widths, dim=1), strict=True):
            block.copy_(values)


#: Heads by name; each is built from widths by modality, the number of classes, and its settings.
HEADS: dict[str, Callable[..., Head]] = {
    "linear": FusionHead,
}


def build_head(
    name: str, widths: Mapping[str, int], num_classes: int, settings: Mapping[str, Any]
) -> Head:
    """Build a head by name.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    if name not in HEADS:
        raise ValueError(f"unknown head '{name}' (known: {', '.join(HEADS)})")
    return HEADS[name](widths, num_classes, **settings)
