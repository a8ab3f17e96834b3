"""FedCMI: the weaker modalities also learn what the leading one knows (Fan et al. 2024).

Shape legend: B batch, K classes, a modalities assigned.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import InfiltrationHead, MultiModalNetwork, Output
from client_app.data import LocalData
from client_app.objectives.base import OBJECTIVES, LocalContext, Needs
from client_app.objectives.proximal import Proximal

#: Weight of the losses through the modalities' own classifiers, and strength of the temperature:
#: constants of the release.
OWN, SHARPNESS = 2.0, 2.0
#: Mean probabilities are clamped below here, so that every temperature is above 0.
_TINY = 1e-6


@OBJECTIVES.register("infiltration")
@dataclass
class Infiltration(Proximal):
    """``F_k = CE + 2 sum_m CE(C_m s_m) + beta KD + (mu/2) ||w - w_t||^2``; KD from round 2 on.

    In each batch the modality l with the largest ``sum_i softmax(C_l s_l)[y_i]`` leads (equal: the
    first); KD is the mean over the others of ::

        KD_m = mean_i -softmax(C_l s_l / T[y_i]) . log softmax(C_m i_m / T[y_i])

    with the teacher C_l s_l of the *received* model in eval mode, on the same inputs, and the
    temperatures T of (l, m), see :func:`temperatures`. One modality alone is CE and the last term.

    Costs a pass over the data and another forward pass per batch, both without gradients; the
    client holds the encoders twice meanwhile, but for what is frozen. Nothing is kept.

    Parameters
    ----------
    mu : float
        Weight of the proximal term, >= 0.
    beta : float
        Weight of the distillation, >= 0.

    Source: https://arxiv.org/abs/2401.00894, as `client/FedCMI.py` of
    https://github.com/fanyunfeng-bit/Balanced-Modality-Selection-in-MFL has it with
    ``--class_wise_t`` (without, its distillation is 0).
    """

    no_gaps: ClassVar[str] = "one modality teaches the others on the same samples"

    beta: float
    head: InfiltrationHead = field(init=False, repr=False)
    teacher: MultiModalNetwork | None = field(default=None, init=False, repr=False)
    temperatures: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0), init=False)
    taught: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0), init=False)

    @property
    def needs(self) -> Needs:
        """Temperatures come from the features at the received model."""
        return Needs.FEATURES if self._distils else Needs.NOTHING

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network's head, which must be one with two projections per modality."""
        if not isinstance(network.head, InfiltrationHead):
            raise ValueError(f"FedCMI needs the head 'infiltration', not '{network.spec.head}'")
        self.head = network.head
        return super().bind(network, context)

    def on_start(self, data: LocalData) -> None:
        """Take temperatures at the received model, and keep that model as the teacher."""
        if self.mu > 0:
            super().on_start(data)
        if not self._distils:
            return
        with torch.no_grad():
            right = _right(self.head.own(self.context.features), data.labels)
        of_class = data.labels[:, None] == torch.arange(data.num_classes, device=right.device)
        counts = of_class.sum(dim=0)
        means = right @ of_class.to(right.dtype) / counts.clamp(min=1)
        self.temperatures = temperatures(means, counts > 0)
        # What nobody trains is the same in both: it is held once.
        named = self.network.named_parameters()
        shared = {id(p): p for name, p in named if name in self.network.frozen}
        self.teacher = deepcopy(self.network, shared).eval()

    @torch.no_grad()
    def on_batch(self, inputs: dict[str, Tensor]) -> None:
        """Ask the teacher."""
        if self.teacher is not None:
            head = self.teacher.head
            assert isinstance(head, InfiltrationHead)
            self.taught = head.own(self.teacher(inputs).features)

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the batch's loss."""
        loss = super().loss(output, labels)
        if len(output.features) < 2:
            return loss
        own = self.head.own(output.features)
        loss = loss + OWN * torch.stack([F.cross_entropy(x, labels) for x in own]).sum()
        if self.teacher is None:
            return loss
        leader = _right(own, labels).sum(dim=1).argmax()
        tempered, learnt = self.temperatures[:, :, labels], self.head.learnt(output.features)
        return loss + self.beta * distillation(self.taught, learnt, leader, tempered)

    @property
    def _distils(self) -> bool:
        several = len(self.network.modalities) > 1
        return several and self.beta > 0 and self.context.orders.round > 1


def temperatures(right: Tensor, seen: Tensor) -> Tensor:
    """Return T (a, a, K) by teacher, student and class: low where the student is far behind.

    ``T_c = 1 / (1 + 2 ln(r_c / mean r))`` where ``r_c > mean r``, else 1; r is the ratio of the
    teacher's to the student's mean probability of class c, its mean that over classes seen.

    Parameters
    ----------
    right : Tensor (a, K)
        Mean probability of the true class, by modality and class.
    seen : Tensor (K,), bool
        Classes that the client has; others are not looked at.

    >>> p = torch.tensor([[0.9, 0.6, 0.4], [0.3, 0.5, 0.4]])
    >>> [round(t, 6) for t in temperatures(p, torch.tensor([True, True, True]))[0, 1].tolist()]
    [0.476842, 1.0, 1.0]
    """
    p = right.clamp(min=_TINY)
    ratio = p[:, None] / p[None]
    mean = (ratio * seen).sum(dim=-1, keepdim=True) / seen.sum()
    return 1 / (1 + SHARPNESS * (ratio / mean).clamp(min=1).log())


def distillation(taught: Tensor, learnt: Tensor, leader: Tensor, tempered: Tensor) -> Tensor:
    """Return the mean cross-entropy of all students against the leader's answers.

    Parameters
    ----------
    taught : Tensor (a, B, K)
        Logits of each modality as the teacher would have them.
    learnt : Tensor (a, B, K)
        Logits of each as a student.
    leader : Tensor (), int64
        Which of them teaches; it learns nothing itself.
    tempered : Tensor (a, a, B)
        Temperatures by teacher, student and sample.
    """
    a, row = len(learnt), leader.view(1)
    t = tempered.index_select(0, row).squeeze(0).unsqueeze(-1)  # (a, B, 1)
    target = (taught.index_select(0, row) / t).softmax(dim=-1)
    each = -(target * (learnt / t).log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)
    students = torch.arange(a, device=leader.device) != leader
    return (each * students).sum() / (a - 1)


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities (a, B) of the true class, of logits (a, B, K); no gradient."""
    p = logits.detach().softmax(dim=-1)
    return p.gather(2, labels.expand(len(p), -1).unsqueeze(-1)).squeeze(-1)
