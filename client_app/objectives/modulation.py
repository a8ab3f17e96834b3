"""What methods share that look at each modality's share of the logits (OGM-GE, AGM, LFM)."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output


def logit_shares(network: MultiModalNetwork, output: Output) -> Tensor:
    """Each modality's share of the logits, ``u_m = W_m z_m + b/a`` (a, B, K).

    The shares of the a modalities present sum to the logits, sample by sample.
    """
    bias = network.head.fuse({})
    parts = torch.stack(list(output.parts.values()))
    if not output.present:
        return parts + bias / len(output.parts)
    return parts + bias / output.held().sum(dim=0).clamp(min=1)[:, None]


@torch.no_grad()
def split_logits(network: MultiModalNetwork, output: Output) -> Tensor:
    """Return :func:`logit_shares` without gradient."""
    return logit_shares(network, output)


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
