"""What the methods share that slow down the modality which leads (OGM-GE, AGM)."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output


def split_logits(network: MultiModalNetwork, output: Output) -> Tensor:
    """Each modality's share of the logits, ``u_m = W_m z_m + b/a`` (a, B, K), without gradient.

    The shares of the a modalities present sum to the logits, sample by sample.
    """
    bias = network.head.get_parameter("bias").detach()
    parts = torch.stack([p.detach() for p in output.parts.values()])
    if not output.present:
        return parts + bias / len(output.parts)
    return parts + bias / output.held().sum(dim=0).clamp(min=1)[:, None]


def comparable(output: Output) -> bool:
    """Whether every modality is there to be compared: of several, in some samples of the batch.

    A batch in which no sample has a modality is not modulated.
    """
    several = len(output.features) > 1
    return several and (not output.present or bool(output.held().any(dim=1).all()))


def mean_over(values: Tensor, held: Tensor) -> Tensor:
    """Mean (a,) of values (a, B) over the samples that have each modality."""
    return (values * held).sum(dim=1) / held.sum(dim=1)


def others_mean(values: Tensor) -> Tensor:
    """For each of a >= 2 values (a,), the mean of the others."""
    return (values.sum() - values) / (len(values) - 1)
