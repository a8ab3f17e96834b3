"""Samples that a client keeps out of its training, the same in every round."""

from __future__ import annotations

import torch
from torch import Tensor

from client_app.data import LocalData
from client_app.objectives.base import LocalContext
from strategies.randomness import generator


def drawn_holdout(data: LocalData, share: float, context: LocalContext) -> Tensor:
    """Say which samples are held out, (n,) bool: drawn by (seed, client), whatever the round.

    Parameters
    ----------
    data : LocalData
        All n samples of the client.
    share : float
        Of them, in [0, 0.5]; above 0, at least one sample is on each side. A client with a single
        sample holds none out.
    context : LocalContext
        Has the experiment's seed and the client's id.
    """
    held_out = torch.zeros(len(data), dtype=torch.bool, device=data.index.device)
    if share == 0 or len(data) < 2:
        return held_out
    count = min(max(round(share * len(data)), 1), len(data) - 1)
    rng = generator(context.settings.seed, "holdout", context.orders.client_id)
    drawn = rng.permutation(len(data))[:count]
    held_out[torch.from_numpy(drawn).to(held_out.device)] = True
    return held_out
