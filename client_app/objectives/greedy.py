"""Greedy: balance branches by their conditional learning speed (Wu et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from bmsfed_app.models import MMTMHead, MultiModalNetwork, Output
from client_app.data import LocalData
from client_app.objectives.base import OBJECTIVES, LocalContext, Objective, cross_entropy

#: Sums of squares are clamped below here, so that every speed is finite.
_TINY = 1e-30


@OBJECTIVES.register("greedy")
@dataclass
class Greedy(Objective):
    """Sum of the branches' cross-entropies; the gate that learns fastest is frozen for a while.

    Of every modality that is there, over the steps t of this local training that are not frozen::

        B_m = sum_t ||grad gate_m||^2 / ||gate_m||^2      gate: all U and c, its own V_m and c_m
        E_m = sum_t ||grad branch_m||^2 / ||branch_m||^2  branch: encoder m and its classifier
        v_m = log10(B_m / E_m)

    From the second local epoch on, after each such step: if max v - min v > eps, the gate of
    argmax v (equal: the first) is its own running mean for the next ``q`` steps; then comes a plain
    step, after which this is judged anew, as in the official code. (That takes modality 1's mean
    from modality 0's gate; here each has its own.) One modality alone has nothing to balance. With
    one local epoch nothing is ever re-balanced: the method is then MMTM with a classifier per
    branch.

    Sums restart with each local training, so nothing is kept and nothing but the parts travels;
    the running means of gates are part of the head. A step that is not frozen costs the norms of
    all parameters and gradients, and from the second epoch on one wait for the device.

    Parameters
    ----------
    eps : float
        Difference of speeds (in powers of ten) that is tolerated, >= 0. Official: 0.01.
    q : int
        Steps that a gate stays frozen, >= 1. Official: 5.
    """

    eps: float
    q: int
    head: MMTMHead = field(init=False, repr=False)
    parameters: list[nn.Parameter] = field(default_factory=list, init=False)
    groups: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0), init=False)
    epoch: int = field(default=0, init=False)
    frozen_steps: int = field(default=0, init=False)

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network's head, which must be one with gates."""
        if not isinstance(network.head, MMTMHead):
            raise ValueError(f"Greedy needs the head 'mmtm', not '{network.spec.head}'")
        self.head = network.head
        return super().bind(network, context)

    def on_start(self, data: LocalData) -> None:
        self.parameters, groups = speed_groups(self.network, self.head)
        self.groups = groups.to(data.index.device)
        self.sums = self.groups.new_zeros(len(groups))

    def on_epoch(self, data: LocalData, epoch: int) -> None:
        self.epoch = epoch

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the sum of the branches' mean cross-entropies, of samples that have them."""
        branches = [
            cross_entropy(output.of(m, p), output.of(m, labels)) for m, p in output.parts.items()
        ]
        return torch.stack(branches).sum()

    def after_backward(self, output: Output, labels: Tensor) -> None:
        """Add the step to the sums; freeze a gate, or release it, where that is due."""
        if len(self.network.modalities) < 2:
            return
        if self.frozen_steps > 0:
            self.frozen_steps -= 1
            if self.frozen_steps == 0:
                self.head.frozen = None
            return
        self.sums += relative_squares(self.parameters, self.groups)
        if self.epoch > 0:
            gap, fastest = imbalance(self.sums)
            if gap > self.eps:
                self.head.frozen = self.network.modalities[fastest]
                self.frozen_steps = self.q


def speed_groups(network: MultiModalNetwork, head: MMTMHead) -> tuple[list[nn.Parameter], Tensor]:
    """Return all parameters that are not frozen (P of them), and which group each is in.

    The groups (2 a, P) are rows of 0 and 1, float64: first the gates of the a modalities, then
    their branches. U and c are in all gates.
    """
    shared = [*head.squeeze.values(), head.squeeze_bias]
    gates = [[head.excite[m], head.excite_bias[m]] for m in network.modalities]
    branches = [
        [*network.trainable(m), head.weight[m], head.class_bias[m]] for m in network.modalities
    ]
    parameters = list(shared)
    rows: list[list[int]] = []
    for own in (*gates, *branches):
        rows.append(list(range(len(parameters), len(parameters) + len(own))))
        parameters += own
    groups = torch.zeros(len(rows), len(parameters), dtype=torch.float64)
    for row, members in zip(groups, rows, strict=True):
        row[members] = 1.0
    groups[: len(gates), : len(shared)] = 1.0
    return parameters, groups


@torch.no_grad()
def relative_squares(parameters: list[nn.Parameter], groups: Tensor) -> Tensor:
    """Return ``||grad||^2 / ||theta||^2`` of every group (G,), float64; no gradient counts as 0."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    values = [p.detach() for p in parameters]
    norms = torch.stack(torch._foreach_norm([*gradients, *values])).double()
    squares = norms.square().view(2, -1) @ groups.T
    return squares[0] / squares[1].clamp(min=_TINY)


def imbalance(sums: Tensor) -> tuple[float, int]:
    """Return the difference of the extreme speeds and the place of the fastest gate.

    Parameters
    ----------
    sums : Tensor (2 a,)
        B of each of the a modalities, then E.

    >>> gap, fastest = imbalance(torch.tensor([4.0, 1.0, 1.0, 1.0]))
    >>> round(gap, 6), fastest
    (0.60206, 0)
    """
    gates, branches = sums.clamp(min=_TINY).view(2, -1)
    speeds = torch.log10(gates / branches).tolist()
    return max(speeds) - min(speeds), speeds.index(max(speeds))
