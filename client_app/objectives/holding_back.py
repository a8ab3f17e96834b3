"""Losses that hold strong modalities back, so that the fused answer trusts the weak one.

A strong modality is one that learns faster. Its cross-entropy is small before the weak one has
learnt anything, and by then its logits outvote whatever the weak one finds. Label smoothing bounds
them: with K classes and smoothing e, the best logit leads by ``log((1 - e) K / e + 1)`` where the
loss is smallest, and any lead beyond it costs. The weak one's is not bounded.

Shape legend: a modalities, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def strong_ones(modalities: Iterable[str], weak: str | None, device: torch.device) -> Tensor:
    """Return 1 for each modality that is strong, 0 for the weak one, (a,); 0 if none is known."""
    strong = [float(weak is not None and m != weak) for m in modalities]
    return torch.tensor(strong, device=device)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """Cross-entropy against ``(1 - e) onehot(y) + e / K``, sample by sample.

    Parameters
    ----------
    logits : Tensor (..., B, K)
    labels : Tensor (B,), int64
    smoothing : Tensor (...)
        e of each row of batches, in [0, 1].

    Returns
    -------
    Tensor (..., B)
    """
    log_p = logits.log_softmax(dim=-1)
    index = labels.expand(log_p.shape[:-1]).unsqueeze(-1)
    right, any_class = -log_p.gather(-1, index).squeeze(-1), -log_p.mean(dim=-1)
    share = smoothing.unsqueeze(-1)
    return (1 - share) * right + share * any_class


def trained_by_the_weak(parts: Mapping[str, Tensor], strong: Tensor) -> dict[str, Tensor]:
    """Return the same parts (B, K) of the logits, the strong ones' as constants.

    Where all are strong, all are left as they are.
    """
    still = strong * (1 - strong.prod())
    both = zip(parts.items(), still.unbind(), strict=True)
    return {m: (1 - s) * part + s * part.detach() for (m, part), s in both}
