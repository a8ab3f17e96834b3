"""Local work that gave NaN or infinity: where it began, the likely cause and the remedy.

All that costs time happens after the fact: as long as numbers are finite, nothing is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmsfed_app.datasets.finite import Extent, extents, faulty_inputs
from client_app.data import LocalData
from client_app.objectives import LocalContext
from strategies import Update

#: Inputs of a modality that is standardised are far below.
_LARGE = 100.0


class DivergedError(ValueError):
    """A client's numbers are NaN or infinite; the message says where, why and what to do."""


def check_losses(losses: Tensor, epoch: int, data: LocalData, context: LocalContext) -> None:
    """Refuse to go on training by a loss that is not finite.

    Parameters
    ----------
    losses : Tensor (b,)
        Of an epoch's mini-batches.
    epoch : int
        From 0.

    Raises
    ------
    DivergedError
        Names the first mini-batch whose loss is not finite.
    """
    if (wrong := torch.isfinite(losses).logical_not().nonzero()).numel():
        first = int(wrong[0])
        where = f"epoch {epoch + 1}, batch {first + 1} of {len(losses)}"
        what = "NaN" if bool(losses[first].isnan()) else "infinite"
        raise DivergedError(f"the loss became {what} in {where}: {_cause(data, context)}")


def check_answer(update: Update, data: LocalData, context: LocalContext) -> None:
    """Refuse to answer with numbers that are not finite; the server would leave them out.

    Raises
    ------
    DivergedError
        Names the first of them.
    """
    for what, values in _numbers(update):
        if not np.isfinite(values).all():
            raise DivergedError(f"{what} NaN or infinite: {_cause(data, context)}")


def _numbers(update: Update) -> Iterator[tuple[str, Any]]:
    for what, arrays in (
        ("array", update.arrays),
        ("signature", update.signatures),
        ("measurement", update.measurements),
    ):
        yield from ((f"{what} '{name}' is", values) for name, values in arrays.items())
    for modality, p in update.prototypes.items():
        yield f"prototypes of '{modality}' are", p.means[p.counts > 0]
    for modality, value in update.scores.items():
        yield f"the score of '{modality}' is", value


def _cause(data: LocalData, context: LocalContext) -> str:
    """Say what is wrong with the inputs, or else what to change in training."""
    found = extents(data.split, data.index, context.orders.modalities)
    if fault := faulty_inputs(found, len(data)):
        return fault
    remedies = _large(found)
    if context.orders.kind == "train":
        settings = context.settings
        remedies += [f"lower lr ({settings.lr:g} in this round)"]
        remedies += [
            f"lower clip_norm ({settings.clip_norm:g})" if settings.clip_norm else "set clip_norm"
        ]
    return ", or ".join(remedies or ["the received model gives such numbers: lower lr"])


def _large(found: Mapping[str, Extent]) -> list[str]:
    """Name the modality with the largest inputs, where these are far from standardised."""
    name = max(found, key=lambda m: found[m].largest)
    if found[name].largest <= _LARGE:
        return []
    return [f"standardise modality '{name}', whose inputs reach {found[name].largest:.3g}"]
