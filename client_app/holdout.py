"""Samples that a client keeps out of its training, the same in every round."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bmsfed_app.partitions import held_out_rows
from client_app.data import LocalData
from client_app.objectives.base import LocalContext


def drawn_holdout(data: LocalData, share: float, context: LocalContext) -> Tensor:
    """Say which samples are held out, (n,) bool: drawn by (seed, client), whatever the round.

    Drawn among all samples of the client, so a sample is held out in every round or in none,
    whichever modalities are assigned.

    Parameters
    ----------
    data : LocalData
        n samples of the client: those that have any of the modalities assigned.
    share : float
        Of all its samples, in [0, 0.5]; above 0, at least one sample is on each side. A client with
        a single sample holds none out. A modality whose samples would all be held out gets its
        first one back, so among few samples, or few that have the modalities assigned, none may be
        held out.
    context : LocalContext
        Has the experiment's seed and the client's id.
    """
    seed, client = context.settings.seed, context.orders.client_id
    whole = data if data.whole is None else replace(data, index=data.whole)
    rows = held_out_rows(len(whole), share, seed, client, "holdout")
    drawn = torch.from_numpy(rows).to(data.index.device)
    for has in whole.gaps(whole.modalities).values():
        if drawn[has].all():
            drawn[has.nonzero()[:1]] = False
    return drawn[torch.isin(whole.index, data.index)]
