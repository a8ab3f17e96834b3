"""AGM: adaptive gradient modulation (Li et al., ICCV 2023, https://arxiv.org/abs/2308.07686)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import Output
from client_app.data import LocalData
from client_app.objectives.base import OBJECTIVES, Objective
from client_app.objectives.modulation import comparable, mean_over, others_mean, split_logits
from strategies import Arrays


@OBJECTIVES.register("agm")
@dataclass
class AdaptiveGradientModulation(Objective):
    """Cross-entropy; what enters modality m is scaled by how far it leads, against its history.

    phi_m is the Shapley value of modality m in the logits. With a linear fusion of features and a
    missing modality padded by zero features, it is the modality's own share of the logits,
    ``W_m z_m + b/a``, for any number of modalities: so no masked passes are needed (the official
    code pads inputs and runs 2^a - 1 passes). Per batch::

        s_m = mean -log softmax(phi_m)[y],                  at least 1e-8
        r_m = exp(mean over the others (s_o - s_m))         how far m leads in this batch
        tau_m = exp(mean over the others (S_o - S_m))       and in the running means S so far
        kappa_m = exp(alpha min(tau_m - r_m, 10))
        S <- S (t - 1)/t + s/t

    Encoder m and its head columns get kappa_m times cross-entropy's gradient, the bias the mean
    kappa. As in the official code, where an entry of the head's gradient then exceeds 1 in size,
    all gradients are clipped to norm 1. One modality alone, or a round past the first ``until``,
    is plain cross-entropy.

    S and t go on over a client's rounds: they travel both ways and the server keeps them (8 bytes
    per modality and 8 for t, per client).

    Parameters
    ----------
    alpha : float
        Strength, >= 0; 0 is FedAvg's objective. Official: 1 (2.5 for AV-MNIST).
    until : float
        Share of the rounds in which to modulate.
    """

    alpha: float
    until: float
    steps: int = field(default=0, init=False)
    means: Tensor = field(default_factory=lambda: torch.zeros(0), init=False)

    def on_start(self, data: LocalData) -> None:
        state = self.context.orders.method_state
        known = state.get("means", {})
        self.steps = int(state.get("steps", 0))
        self.means = torch.tensor(
            [float(known.get(m, 0.0)) for m in self.network.modalities],
            dtype=torch.float64,
            device=data.index.device,
        )

    def after_backward(self, output: Output, labels: Tensor) -> None:
        past = self.context.settings.progress >= self.until
        if past or self.alpha == 0 or not comparable(output):
            return
        held = output.held() if output.present else None
        kappa = self.factors(split_logits(self.network, output), labels, held)
        head = self.network.head
        for modality, k in zip(output.features, kappa.float(), strict=True):
            weights = [*self.network.trainable(modality), head.get_parameter(f"weight.{modality}")]
            grads = [w.grad for w in weights if w.grad is not None]
            torch._foreach_mul_(grads, k)
        bias = head.get_parameter("bias")
        if bias.grad is not None:
            bias.grad.mul_(kappa.mean().float())
        _clip(head, self.network)

    def factors(self, split: Tensor, labels: Tensor, held: Tensor | None = None) -> Tensor:
        """Return kappa_m (a,) from the shares of the logits (a, B, K); update the running means.

        Where samples lack modalities, ``held`` (a, B) says which have which: means are over those.
        """
        classes = split.shape[2]
        losses = F.cross_entropy(
            split.double().reshape(-1, classes), labels.repeat(len(split)), reduction="none"
        )
        losses = losses.reshape(len(split), -1)
        scores = losses.mean(dim=1) if held is None else mean_over(losses, held)
        scores = scores.clamp(min=1e-8)
        lead = torch.exp(others_mean(scores) - scores)
        usual = torch.exp(others_mean(self.means) - self.means)
        self.steps += 1
        self.means = self.means * ((self.steps - 1) / self.steps) + scores / self.steps
        return torch.exp(self.alpha * (usual - lead).clamp(max=10.0))

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        if self.steps == 0:
            return {}
        means = zip(self.network.modalities, self.means.tolist(), strict=True)
        found: Arrays = {f"agm.{m}": np.array([s]) for m, s in means}
        return found | {"agm.steps": np.array([float(self.steps)])}


def _clip(head: nn.Module, network: nn.Module) -> None:
    """Clip all gradients to norm 1 if an entry of the head's exceeds 1, without looking at it."""
    largest = torch.stack([p.grad.abs().max() for p in head.parameters() if p.grad is not None])
    trained = [p for p in network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    nn.utils.clip_grads_with_norm_(trained, 1.0, norm * (largest.max() > 1.0))  # 0: as they are
