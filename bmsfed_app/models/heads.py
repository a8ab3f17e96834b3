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
        _fill_blocks(self.weight, lambda whole: nn.init.xavier_normal_(whole, generator=rng))


class CosineHead(Head):
    """``logits_c = s * cos(z, W_c)`` over the modalities that are there, z and W_c as one each.

    Both are scaled to norm 1 over the present blocks together; there is no bias. Arrays:
    ``weight.<modality>`` (K, D), ``scale`` (1,).

    Parameters
    ----------
    scale : float, default 1.0
        Initial s, above 0; it is learnt.

    Raises
    ------
    ValueError
        If ``scale`` is not above 0.
    """

    def __init__(self, widths: Mapping[str, int], num_classes: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale is {scale}, it must be above 0")
        self.weight = nn.ParameterDict(
            {m: nn.Parameter(torch.empty(num_classes, d)) for m, d in widths.items()}
        )
        self.scale = nn.Parameter(torch.full((1,), float(scale)))
        self.initial_scale = float(scale)

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each modality's share (B, K) of the cosines, times s; they sum to the logits."""
        z, weight = joint_unit(features), joint_unit({m: self.weight[m] for m in features})
        return {m: self.scale * F.linear(z[m], weight[m]) for m in features}

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the contributions."""
        return torch.stack(list(parts.values())).sum(dim=0)

    def reset(self, rng: torch.Generator) -> None:
        """Draw orthonormal rows over all modalities together; s as it was set.

        Raises
        ------
        ValueError
            If there are more classes than features.
        """
        width = sum(b.shape[1] for b in self.weight.values())
        classes = next(iter(self.weight.values())).shape[0]
        if classes > width:
            raise ValueError(f"{classes} classes cannot be orthogonal in {width} features")
        _fill_blocks(self.weight, lambda whole: nn.init.orthogonal_(whole, generator=rng))
        nn.init.constant_(self.scale, self.initial_scale)


def joint_unit(blocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale rows to Euclidean norm 1 over all blocks (R, D) together; rows of zeros stay zero."""
    widths = [b.shape[1] for b in blocks.values()]
    rows = F.normalize(torch.cat(list(blocks.values()), dim=1), dim=1)
    return dict(zip(blocks, rows.split(widths, dim=1), strict=True))


def _fill_blocks(blocks: nn.ParameterDict, draw: Callable[[Tensor], Tensor]) -> None:
    """Fill blocks of columns as one matrix, which ``draw`` fills in place."""
    widths = [b.shape[1] for b in blocks.values()]
    whole = torch.empty(next(iter(blocks.values())).shape[0], sum(widths))
    draw(whole)
    with torch.no_grad():
        for block, values in zip(blocks.values(), whole.split(widths, dim=1), strict=True):
            block.copy_(values)


#: Heads by name; each is built from widths by modality, the number of classes, and its settings.
HEADS: dict[str, Callable[..., Head]] = {
    "linear": FusionHead,
    "cosine": CosineHead,
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
