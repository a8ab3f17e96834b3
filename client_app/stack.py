"""Networks of several clients as one: every array has a leading dimension C over the clients.

Shape legend: C clients, B samples of a mini-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from client_app.objectives import Objective

#: Before the names of a network's arrays, where the network is a part of :class:`_Loss`.
_NETWORK = "network."

Tensors = dict[str, Tensor]


@dataclass
class Group:
    """Mini-batches of one size.

    Attributes
    ----------
    rows : list of int
        Whose they are: places in the stack, rising.
    inputs : dict
        (G, B, ...) by modality, one entry per row.
    labels : Tensor (G, B), int64
    """

    rows: list[int]
    inputs: Tensors
    labels: Tensor


class Stack:
    """Clients' networks in training, and the optimiser of all of them.

    Parameters
    ----------
    objective : Objective
        Of any one of the clients; its network, in training mode, says what is computed and what
        is trained.
    arrays : sequence of dict
        Parameters and buffers of each client's network, by name.
    own : sequence of dict
        What the objective's loss looks at of each client.
    """

    def __init__(
        self, objective: Objective, arrays: Sequence[Tensors], own: Sequence[Tensors]
    ) -> None:
        network = objective.network
        self.module = _Loss(objective)
        self.clip_norm = objective.context.settings.clip_norm
        stacked = {n: torch.stack([client[n] for client in arrays]) for n in arrays[0]}
        self.parameters = {
            n: nn.Parameter(stacked[n], requires_grad=p.requires_grad)
            for n, p in network.named_parameters()
        }
        self.buffers = {n: stacked[n] for n, _ in network.named_buffers()}
        self.own = {n: torch.stack([client[n] for client in own]) for n in own[0]}
        self.trained = [p for p in self.parameters.values() if p.requires_grad]
        self.optimizer = objective.context.optimizer(self.trained)

    def __len__(self) -> int:
        return len(self.trained[0])

    def step(self, groups: Sequence[Group]) -> Tensor:
        """Train every client on its mini-batch; return the losses (C,)."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._losses(group) for group in groups]
        # A client's loss depends on its own arrays alone: the sum's gradient is that of each.
        torch.cat(losses).sum().backward()
        if self.clip_norm > 0:
            self._clip()
        self.optimizer.step()
        found = losses[0].new_empty(len(self))
        for group, values in zip(groups, losses, strict=True):
            found[group.rows] = values.detach()
        return found

    def keep(self, rows: list[int]) -> None:
        """Go on with just these clients."""
        for parameter in self.parameters.values():
            state = self.optimizer.state.get(parameter, {})
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = value[rows]
            parameter.grad = None
            parameter.data = parameter.data[rows]
        self.buffers = _rows(self.buffers, rows)
        self.own = _rows(self.own, rows)

    def arrays(self, row: int) -> Tensors:
        """Return copies of one client's parameters and buffers, by name."""
        both = {**self.parameters, **self.buffers}
        return {n: value[row].detach().clone() for n, value in both.items()}

    def _losses(self, group: Group) -> Tensor:
        """Return the losses (G,) of a group; its buffers follow."""
        whole = len(group.rows) == len(self)
        # Buffers are copied in any case: batch norms write into them.
        buffers = _rows(self.buffers, group.rows)
        parameters: Tensors = dict(self.parameters)
        own = self.own
        if not whole:
            parameters, own = _rows(parameters, group.rows), _rows(own, group.rows)
        losses, buffers = vmap(self._one)(parameters, buffers, group.inputs, group.labels, own)
        for name, values in buffers.items():
            self.buffers[name][group.rows] = values.detach()
        return losses

    def _one(
        self, parameters: Tensors, buffers: Tensors, inputs: Tensors, labels: Tensor, own: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Return one client's loss and its buffers after that, seen by ``vmap``."""
        arrays = {_NETWORK + n: value for n, value in {**parameters, **buffers}.items()}
        loss = functional_call(self.module, arrays, (inputs, labels, own))
        return loss, {n: arrays[_NETWORK + n] for n in buffers}

    def _clip(self) -> None:
        """Clip each client's gradient as ``clip_grad_norm_`` does."""
        grads = [p.grad for p in self.trained if p.grad is not None]
        norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in grads]
        total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factors = (self.clip_norm / (total + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factors.view(-1, *[1] * (grad.dim() - 1)))


class _Loss(nn.Module):
    """An objective's loss as a module, so that its network's arrays can be exchanged in it."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective, self.network = objective, objective.network

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor, own: Tensors) -> Tensor:
        return self.objective.packed_loss(self.network(inputs), labels, own)


def _rows(tensors: Mapping[str, Tensor], rows: list[int]) -> Tensors:
    return {n: value[rows] for n, value in tensors.items()}
