"""What the methods share that slow down the modality which leads (OGM-GE, AGM)."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output


def split_logits(network: MultiModalNetwork, output: Output) -> Tensor:
    """Each modality's share of the logits, ``u_m = W_m z_m + b/a`` (a, B, K), without gradient.

    The shares of the a modalities present sum to the logits.
    """
    bias = network.head.get_parameter("bias").detach()
    parts = torch.stack([p.detach() for p in output.parts.values()])
    return parts + bias / len(output.parts)


def others_mean(values: Tensor) -> Tensor:
    """For each of a >= 2 values (a,), the mean of the others."""
    return (values.sum() - values) / (len(values) - 1)
