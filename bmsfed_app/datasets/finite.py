"""Which of a model's inputs are NaN or infinite, and how large the others are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmsfed_app.datasets.base import Split

_CHUNK = 256  # samples rendered at a time
_LISTED = 5  # samples that a message names


@dataclass
class Extent:
    """What a modality's inputs are like.

    Attributes
    ----------
    faulty : list of str
        Samples with an input that is NaN or infinite, by id, or by row where there are none.
    largest : float
        The largest absolute value of the others.
    """

    faulty: list[str] = field(default_factory=list)
    largest: float = 0.0


@torch.inference_mode()
def extents(split: Split, rows: Tensor, modalities: Sequence[str]) -> dict[str, Extent]:
    """Look at the inputs of some samples, by modality; token ids have no extent.

    Parameters
    ----------
    split : Split
    rows : Tensor (n,), int64
        On the split's device.
    modalities : sequence of str
    """
    found = {m: Extent() for m in modalities}
    for chunk in rows.split(_CHUNK):
        for modality, inputs in split.batch(chunk, modalities).items():
            if not inputs.is_floating_point():
                continue
            finite, extent = torch.isfinite(inputs), found[modality]
            largest = inputs.where(finite, 0).abs().max()
            extent.largest = max(extent.largest, float(largest))
            numbers = chunk[~finite.flatten(1).all(1)].tolist()
            extent.faulty += [str(n) if split.ids is None else str(split.ids[n]) for n in numbers]
    return found


def faulty_inputs(found: dict[str, Extent], total: int) -> str:
    """Name the first modality with inputs that are not finite, and samples; empty if none is."""
    for modality, extent in found.items():
        if faulty := extent.faulty:
            listed = ", ".join(faulty[:_LISTED]) + (", ..." if len(faulty) > _LISTED else "")
            return (
                f"modality '{modality}' of {len(faulty)} of {total} samples is NaN or infinite "
                f"({listed}): mend these samples or leave them out"
            )
    return ""
