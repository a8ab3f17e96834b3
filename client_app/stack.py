"""Networks of several clients as one: every array has a leading dimension C over the clients.

Shape legend: C clients, B samples of a mini-batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bmsfed_app.datasets.base import sent
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
        Of any one of the clients; its network, in training mode, says what is computed.
    arrays : sequence of dict
        Parameters and buffers of each client's network, by name.
    own : sequence of dict
        What the objective's loss looks at of each client.
    trained : collection of str
        Names of the parameters that are trained.
    """

    def __init__(
        self,
        objective: Objective,
        arrays: Sequence[Tensors],
        own: Sequence[Tensors],
        trained: Collection[str],
    ) -> None:
        network = objective.network
        self.module = _Loss(objective)
        self.clip_norm = objective.context.settings.clip_norm
        stacked = {n: torch.stack([client[n] for client in arrays]) for n in arrays[0]}
        self.parameters = {
            n: nn.Parameter(stacked[n], requires_grad=n in trained)
            for n, _ in network.named_parameters()
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
        indices = [self._index(group.rows) for group in groups]
        losses = torch.cat([self._losses(g, i) for g, i in zip(groups, indices, strict=True)])
        # A client's loss depends on its own arrays alone: the sum's gradient is that of each.
        losses.sum().backward()
        if self.clip_norm > 0:
            self._clip()
        self.optimizer.step()
        return torch.empty_like(losses).index_copy_(0, torch.cat(indices), losses.detach())

    def keep(self, rows: list[int]) -> None:
        """Go on with just these clients."""
        index = self._index(rows)
        for parameter in self.parameters.values():
            state = self.optimizer.state.get(parameter, {})
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = value.index_select(0, index)
            parameter.grad = None
            parameter.data = parameter.data.index_select(0, index)
        self.buffers, self.own = _picked(self.buffers, index), _picked(self.own, index)

    def arrays(self, row: int) -> Tensors:
        """Return copies of one client's parameters and buffers, by name."""
        both = {**self.parameters, **self.buffers}
        return {n: value[row].detach().clone() for n, value in both.items()}

    def _index(self, rows: list[int]) -> Tensor:
        return sent(torch.tensor(rows, dtype=torch.int64), self.trained[0].device)

    def _losses(self, group: Group, index: Tensor) -> Tensor:
        """Return the losses (G,) of a group; its buffers follow."""
        parameters, own = dict[str, Tensor](self.parameters), self.own
        if len(group.rows) < len(self):
            parameters, own = _picked(parameters, index), _picked(own, index)
        buffers = _picked(self.buffers, index)  # copies: batch norm writes into them
        losses, buffers = vmap(self._one)(parameters, buffers, group.inputs, group.labels, own)
        for name, values in buffers.items():
            self.buffers[name].index_copy_(0, index, values.detach())
        found: Tensor = losses
        return found

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
        return self.objective.packed_total(self.network(inputs), labels, own)


def _picked(tensors: Mapping[str, Tensor], index: Tensor) -> Tensors:
    return {n: value.index_select(0, index) for n, value in tensors.items()}
