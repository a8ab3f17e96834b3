"""Whether a head, perhaps of another package, can be used: built and tried before the start.

Shape legend: K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bmsfed_app.models.heads import Head, build_head


def head_fault(
    name: str, widths: Mapping[str, int], num_classes: int, settings: Mapping[str, Any]
) -> str | None:
    """Say why a head cannot be used, or return None.

    It is built for all modalities and for each alone, its weights are drawn, and it is given
    features of two samples.

    Parameters
    ----------
    widths : mapping
        D by modality.
    """
    try:
        for there in (widths, *({m: d} for m, d in widths.items())):
            head = build_head(name, there, num_classes, settings, widths)
            head.reset(torch.Generator().manual_seed(0))
            if fault := _names_fault(head, widths):
                return f"{name}: {fault}"
            logits = head({m: torch.ones(2, d) for m, d in there.items()})
            if tuple(logits.shape) != (2, num_classes):
                return (
                    f"{name}: returns {tuple(logits.shape)} for two samples of {', '.join(there)}, "
                    f"not (2, {num_classes})"
                )
    except ValueError as error:
        return str(error)
    except Exception as error:  # whatever somebody's module raises
        return f"{name}: {type(error).__name__}: {error}"
    return None


def _names_fault(head: Head, modalities: Iterable[str]) -> str | None:
    """Say which array's name does not tell whose it is."""
    for name in head.state_dict():
        what, _, owner = name.partition(".")
        if owner and owner not in modalities:
            return (
                f"its array '{name}' is neither '<what>' nor '<what>.<modality>', by which arrays "
                f"travel: hold '{what}' as a Parameter or a ParameterDict by modality"
            )
    return None
