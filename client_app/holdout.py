"""Samples that a client keeps out of its training, the same in every round."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.partitions import held_out_rows
from client_app.data import LocalData
from client_app.objectives.base import LocalContext


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
    seed, client = context.settings.seed, context.orders.client_id
    drawn = held_out_rows(len(data), share, seed, client, "holdout")
    return torch.from_numpy(drawn).to(data.index.device)
