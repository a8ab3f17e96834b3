"""What methods share that look at each modality's share of the logits (OGM-GE, AGM, LFM)."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output


def logit_shares(network: MultiModalNetwork, output: Output) -> Tensor:
    """Each modality's share of the logits, ``u_m = W_m z_m + b/a`` (a, B, K).

    The shares of the a modalities present sum to the logits.
    """
    bias = network.head.fuse({})
    return torch.stack(list(output.parts.values())) + bias / len(output.parts)


@torch.no_grad()
def split_logits(network: MultiModalNetwork, output: Output) -> Tensor:
    """Return :func:`logit_shares` without gradient."""
    return logit_shares(network, output)


def others_mean(values: Tensor) -> Tensor:
    """For each of a >= 2 values (a,), the mean of the others."""
    return (values.sum() - values) / (len(values) - 1)
