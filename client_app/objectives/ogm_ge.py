"""OGM-GE: on-the-fly gradient modulation, generalisation enhancement (Peng et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmsfed_app.models import Output
from client_app.objectives.base import OBJECTIVES, Objective
from client_app.objectives.modulation import comparable, mean_over, others_mean, split_logits


@OBJECTIVES.register("ogm_ge")
@dataclass
class OgmGe(Objective):
    """Cross-entropy, with the leading modality's encoder gradient scaled down, plus noise.

    Per batch: ``s_m = sum_i softmax(u_m,i)[y_i]`` with u_m the modality's share of the logits,
    ``rho_m = s_m / mean of the others' s``, ``k_m = 1 - tanh(alpha rho_m)`` where rho_m > 1, else
    1. The gradient of encoder m becomes ``k_m g + N(0, std(g)^2)``, tensor by tensor, on weights
    of two or more dimensions (the official code: four, which skips text); std is that of the
    unscaled gradient, and noise is added also where k_m = 1. The head is left alone.

    A tie modulates nobody. One modality alone, or a round past the first ``until``, is plain
    cross-entropy. Scaling a gradient is mostly lost on Adam-like optimisers: keep sgd. Nothing is
    kept and nothing more travels.

    Parameters
    ----------
    alpha : float
        Strength, >= 0; 0 modulates nothing. Official: 0.8 (CREMA-D), 0.1 (VGGSound).
    noise : bool
        Whether to add the noise ("GE").
    until : float
        Share of the rounds in which to modulate.

    Source: https://arxiv.org/abs/2203.15332, Eqs. 6-11 there.
    """

    alpha: float
    noise: bool
    until: float
    _rng: torch.Generator | None = field(default=None, init=False, repr=False)

    def after_backward(self, output: Output, labels: Tensor) -> None:
        if self.context.settings.progress >= self.until or not comparable(output):
            return
        held = output.held() if output.present else None
        factors = self.factors(split_logits(self.network, output), labels, held)
        for modality, k in zip(output.features, factors.float(), strict=True):
            for weight in self.network.encoders[modality].parameters():
                if weight.dim() >= 2 and weight.grad is not None:
                    self._modulate(weight.grad, k)

    def factors(self, split: Tensor, labels: Tensor, held: Tensor | None = None) -> Tensor:
        """Return k_m (a,) from the modalities' shares of the logits (a, B, K).

        Where samples lack modalities, ``held`` (a, B) says which have which: s_m are then means
        over those, or no two could be compared.
        """
        p = split.double().softmax(dim=2)
        true = p[:, torch.arange(len(labels), device=labels.device), labels]
        scores = true.sum(dim=1) if held is None else mean_over(true, held)
        rho = scores / others_mean(scores)
        return torch.where(rho > 1, 1 - torch.tanh(self.alpha * rho), torch.ones_like(rho))

    def _modulate(self, grad: Tensor, k: Tensor) -> None:
        spread = grad.std() + 1e-8 if self.noise and grad.numel() > 1 else None
        grad.mul_(k)
        if spread is not None:
            if self._rng is None:
                self._rng = self.context.generator("ogm-ge", grad.device)
            grad += spread * torch.randn(grad.shape, generator=self._rng, device=grad.device)
