"""A head trained by itself on features that stand still."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bmsfed_app.models import Head
from client_app.data import LocalData
from client_app.objectives.base import LocalContext


def fit_head(
    head: Head,
    features: Mapping[str, Tensor],
    data: LocalData,
    loss: Callable[[dict[str, Tensor], Tensor, dict[str, Tensor]], Tensor],
    context: LocalContext,
    lr: float,
) -> None:
    """Train a head for one epoch, in place, as the experiment trains networks but for the rate.

    Parameters
    ----------
    head : Head
    features : mapping
        Features (n, D) of all the client's samples by modality.
    data : LocalData
        These samples.
    loss : callable
        Of a batch's features (B, D) by modality, labels (B,), and, by modality that samples lack,
        which have it (B,).
    context : LocalContext
        Draws the order of the samples, and has the experiment's settings.
    lr : float
        Learning rate.
    """
    settings, labels, gaps = context.settings, data.labels, data.gaps(features)
    optimizer = context.optimizer(head.parameters(), lr)
    kept = {m: z.clone() for m, z in features.items()}  # without what inference mode forbids
    order = torch.randperm(len(labels), generator=context.generator("head"))
    for rows in order.to(labels.device).split(settings.batch_size):
        own = {m: z[rows] for m, z in kept.items()}
        value = loss(own, labels[rows], {m: mask[rows] for m, mask in gaps.items()})
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if settings.clip_norm > 0:
            nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        optimizer.step()
