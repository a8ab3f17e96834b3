"""MMPareto: joint and uni-modal gradients combined without conflict (Wei and Hu, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output, UniModalHeads
from client_app.objectives.base import OBJECTIVES, LocalContext, Objective

#: A v_p that is shorter, of ||g_p|| + ||h_p||, is rounding: its direction means nothing.
_ROUNDING = 1e-6


@OBJECTIVES.register("mmpareto")
@dataclass
class MMPareto(Objective):
    """``CE + gamma sum_m CE_m``, whose two gradients meet at each encoder as MMPareto says.

    gamma is the experiment's ``uni_weight``, which is not added a second time here. With g and h
    the gradients of CE and gamma CE_m at encoder m, each as one vector over the whole encoder::

        g.h > 0   k = (1/2, 1/2)
        else      k_0 = (h.h - g.h) / (g.g + h.h - 2 g.h), k_1 = 1 - k_0     a conflict: min-norm
        v = 2 (k_0 g + k_1 h);   grad_p = factor max(1, ||g_p + h_p|| / ||v_p||) v_p  per tensor p

    Where g or h is 0, v is g + h; where v_p is 0, so is grad_p (the official code: NaN). The head
    gets the plain gradient. One modality alone is plain cross-entropy.

    Another modality's CE does not reach encoder m, so that two backward passes give all g and h of
    any number of modalities: that of the h through the graph which the one of CE frees.

    The client tells ``conflicts.<modality>``, the share of its steps in which g.h <= 0. Nothing is
    kept. Longer gradients are lost on adam and others that divide by their size: keep sgd.

    Parameters
    ----------
    factor : float
        Length of all encoders' gradients, above 0. Official: 1.5. With 1 and no conflict this is
        ``cross_entropy`` with the same ``uni_weight``.
    heads : {"shared", "own"}
        CE_m through modality m's own columns of the fused head, or through a head of its own (head
        "blending"), as the official code has it.

    Source: https://arxiv.org/abs/2405.17730; ``code/MMPareto.py`` of
    https://github.com/GeWu-Lab/MMPareto_ICML2024.
    """

    factor: float
    heads: Literal["shared", "own"]
    encoders: dict[str, list[nn.Parameter]] = field(default_factory=dict, init=False, repr=False)
    of_head: list[nn.Parameter] = field(default_factory=list, init=False, repr=False)
    uni: dict[nn.Parameter, Tensor | None] = field(default_factory=dict, init=False, repr=False)
    judged: dict[str, int] = field(default_factory=dict, init=False)
    conflicts: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network, whose head must have what CE_m goes through."""
        if self.heads == "own" and not isinstance(network.head, UniModalHeads):
            raise ValueError(
                f"MMPareto with heads 'own' needs the head 'blending', not '{network.spec.head}'"
            )
        found = {m: network.trainable(m) for m in network.modalities}
        self.encoders = {m: parameters for m, parameters in found.items() if parameters}
        of_head = network.head.named_parameters("head")
        self.of_head = [p for name, p in of_head if name not in network.frozen]
        return super().bind(network, context)

    def total(self, output: Output, labels: Tensor) -> Tensor:
        """Return the loss, which has the uni-modal losses in it."""
        return self.loss(output, labels)

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss; that of the fused head alone is left to go backwards."""
        fused = super().loss(output, labels)
        if len(output.features) < 2:
            return fused
        uni = self.context.settings.uni_weight * self.uni_losses(output, labels).sum()
        parameters = [*(p for m in self.encoders.values() for p in m), *self.of_head]
        found = torch.autograd.grad(uni, parameters, retain_graph=True, allow_unused=True)
        self.uni = dict(zip(parameters, found, strict=True))
        return fused + uni.detach()

    def uni_losses(self, output: Output, labels: Tensor) -> Tensor:
        """Cross-entropy (a,) of each modality through its columns, or through its own head."""
        head = self.network.head
        if self.heads == "shared" or not isinstance(head, UniModalHeads):
            return super().uni_losses(output, labels)
        own = [head.own(m, z) for m, z in output.features.items()]
        return torch.stack([F.cross_entropy(logits, labels) for logits in own])

    def after_backward(self, output: Output, labels: Tensor) -> None:
        if len(output.features) < 2:
            return
        for p in self.of_head:
            if (h := self.uni[p]) is not None:
                p.grad = h if p.grad is None else p.grad + h
        for modality, parameters in self.encoders.items():
            both = ((p.grad, self.uni[p]) for p in parameters)
            pairs = [(g, h) for g, h in both if g is not None and h is not None]
            if not pairs:
                continue
            joint, uni = map(list, zip(*pairs, strict=True))
            combined, conflict = combine(joint, uni, self.factor)
            torch._foreach_copy_(joint, combined)
            self.judged[modality] = self.judged.get(modality, 0) + 1
            self.conflicts[modality] = self.conflicts.get(modality, 0) + conflict

    def metrics(self) -> dict[str, float]:
        """Return the share of steps in which each encoder's gradients were in conflict."""
        return {f"conflicts.{m}": float(n) / self.judged[m] for m, n in self.conflicts.items()}


def combine(
    joint: Sequence[Tensor], uni: Sequence[Tensor], factor: float
) -> tuple[list[Tensor], Tensor]:
    """Combine two gradients of one encoder's tensors.

    Parameters
    ----------
    joint, uni : sequence of Tensor
        g and h, of the same shapes.
    factor : float
        Of their length.

    Returns
    -------
    combined : list of Tensor
    conflict : Tensor (), bool
        Whether they were in conflict; it stays on the device.

    Examples
    --------
    >>> [combined], conflict = combine([torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])], 1.5)
    >>> combined, conflict
    (tensor([0.6708, 1.3416]), tensor(True))
    """
    sizes = [x.numel() for x in joint]
    g, h = (torch.cat([x.reshape(-1) for x in grads]) for grads in (joint, uni))
    gg, hh, gh = g.dot(g), h.dot(h), g.dot(h)
    conflict = (gh <= 0) & (gg > 0) & (hh > 0)
    k = torch.where(conflict, (hh - gh) / (gg + hh - 2 * gh), 0.5)
    v = 2 * (k * g + (1 - k) * h)

    of_g, of_h, wanted, found = (_norms(x.split(sizes)) for x in (g, h, g + h, v))
    ratio = (wanted / found).clamp(min=1.0)
    length = torch.where(found > _ROUNDING * (of_g + of_h), factor * ratio, 0.0)
    parts = torch._foreach_mul(v.split(sizes), length.unbind())
    return [part.view_as(x) for part, x in zip(parts, joint, strict=True)], conflict


def _norms(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))
