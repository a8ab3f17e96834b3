"""LFM: cross-entropy, and predictions of the modalities that agree (NeurIPS 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from bmsfed_app.models import Output
from client_app.objectives.base import OBJECTIVES, Objective
from client_app.objectives.modulation import logit_shares

#: Coefficients of alpha by powers of the epoch, of which there are so many.
_ALPHA = (0.204623704, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8, -5.39717505e-11)
_EPOCHS = 200


@OBJECTIVES.register("lfm")
@dataclass
class LFM(Objective):
    """``F_k = 2 [alpha CE + (1 - alpha) mean over pairs R(u_m, u_m')]``.

    u_m = W_m z_m + b/a is modality m's share of the logits, p and q the softmaxes of two of them::

        R = (KL(M || p) + KL(M || q)) / 2,  M = (p + q) / 2

    This is no Jensen-Shannon divergence: its arguments are the other way round, and it has no
    bound. While the strong modality is right, R distils it into the weak one's columns; it also
    pulls the strong one towards the weak one. One modality alone is plain cross-entropy. Nothing
    is kept and nothing more travels.

    The official code has a head per modality and takes CE of their mean.

    Parameters
    ----------
    alpha : float, optional
        In [0, 1]; by default the published polynomial of the epoch, of which all rounds are 200,
        and 1 where it is above (1.01 at most, near the end).

    Source: ``Crema_epoch.py`` of https://github.com/njustkmg/NeurIPS24-LFM.
    """

    packs: ClassVar[bool] = True

    alpha: float | None

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        return self._aligned(super().loss(output, labels), output)

    def packed_loss(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return the batch's loss."""
        return self._aligned(super().packed_loss(output, labels, own), output)

    def _aligned(self, fused: Tensor, output: Output) -> Tensor:
        if len(output.parts) < 2:
            return fused
        progress = self.context.settings.progress
        alpha = schedule(progress) if self.alpha is None else self.alpha
        apart = disagreement(logit_shares(self.network, output))
        return 2 * (alpha * fused + (1 - alpha) * apart)


def schedule(progress: float) -> float:
    """Return alpha where a share of the rounds is complete.

    >>> [round(schedule(t), 6) for t in (0.0, 0.25, 0.5, 0.75)]
    [0.204624, 0.436681, 0.539155, 0.821314]
    """
    epoch = _EPOCHS * progress
    return min(sum(c * epoch**power for power, c in enumerate(_ALPHA)), 1.0)


def disagreement(logits: Tensor) -> Tensor:
    """Return the mean of R over all pairs of a >= 2 modalities and the batch.

    Parameters
    ----------
    logits : Tensor (a, B, K)

    Examples
    --------
    >>> p, q = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.4, 0.6]])
    >>> round(float(disagreement(torch.stack([p, q]).log())), 6)
    0.092871
    """
    first, second = torch.triu_indices(len(logits), len(logits), offset=1)
    log_p, log_q = (logits.log_softmax(dim=2)[i] for i in (first, second))
    log_mean = torch.logaddexp(log_p, log_q) - log(2)
    return (log_mean.exp() * (log_mean - (log_p + log_q) / 2)).sum(dim=2).mean()
