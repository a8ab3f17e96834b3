"""Several clients with the same assignment trained as one network, by ``torch.func``.

Each step is one of every client that is not done, on its own next mini-batch, in its own order.
Mini-batches of one size go through the network together, so nothing is padded and batch norm sees
what it would see of one client alone. What is measured before and after training is measured client
by client, by the functions that one client alone uses. Only rounding differs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.models.encoders import ImageEncoder
from bmsfed_app.optimizers import steps_by_entry
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.divergence import check_answer, check_losses
from client_app.objectives import OBJECTIVES, LocalContext
from client_app.stack import Group, Stack, Tensors
from client_app.training import Work, begin, blank_update, finish, ready, received_network
from strategies import Task, Update

#: What was found not to pass through ``vmap``, and why: by network, modalities and objective.
_faults: dict[tuple[NetworkSpec, tuple[str, ...], str], str] = {}


def packing_fault(settings: ClientSettings, modalities: tuple[str, ...]) -> str | None:
    """Say why clients that train these modalities cannot be trained together, or return None."""
    if not vars(OBJECTIVES.find(settings.objective)).get("packs", False):
        return f"the objective '{settings.objective}' cannot be packed"
    if settings.compile:
        return "compiled networks cannot be packed"
    if not steps_by_entry(settings.optimizer):
        return f"the optimizer '{settings.optimizer['name']}' cannot be packed"
    if settings.sample_dropout > 0:
        return "clients with sample_dropout cannot be packed"
    return _faults.get((settings.network, modalities, settings.objective))


def train_together(
    tasks: Sequence[Task], clients: Sequence[LocalData], settings: ClientSettings
) -> list[Update | Exception]:
    """Do training tasks with one assignment together.

    Parameters
    ----------
    tasks : sequence of Task
        All of kind "train", with the same modalities.
    clients : sequence of LocalData
        The data of each.
    settings : ClientSettings
        What the experiment tells everybody.

    Returns
    -------
    list of Update or Exception
        The answers; where a client alone would raise, what it would raise.

    Raises
    ------
    RuntimeError
        If the network turns out not to allow it; :func:`packing_fault` says so from then on.
    """
    started = time.perf_counter()
    outcomes: list[Update | Exception] = []
    members: dict[int, _Member] = {}
    for place, (task, data) in enumerate(zip(tasks, clients, strict=True)):
        try:
            members[place] = _ready(task, data, settings)
            outcomes.append(members[place].work.update)
        except Exception as error:
            outcomes.append(error)
    if members:
        _train(list(members.values()))
    for place, member in members.items():
        try:
            _answer(member)
        except Exception as error:
            outcomes[place] = error
    seconds = time.perf_counter() - started
    for member in members.values():
        member.work.update.metrics["seconds"] = seconds / len(members)
    return outcomes


@dataclass
class _Member:
    """One client of a pack.

    ``data`` is what it trains on, ``own`` what the loss looks at, ``arrays`` its parameters and
    buffers before and after training, ``trained`` the names of those that train; ``losses`` and
    ``sizes`` are of its mini-batches so far.
    """

    work: Work
    data: LocalData
    rng: torch.Generator
    own: Tensors
    arrays: Tensors
    trained: set[str]
    losses: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def chunks(self) -> Iterator[Tensor]:
        """Yield the rows of all mini-batches; each epoch is drawn when it begins."""
        settings = self.work.objective.context.settings
        least = self.work.objective.network.least_batch
        for _ in range(settings.local_epochs):
            yield from self.data.chunks(settings.batch_size, self.rng, least=least)


def _ready(task: Task, data: LocalData, settings: ClientSettings) -> _Member:
    """Measure the received model, and put aside what the client will train."""
    network = received_network(task, data, settings)
    context = LocalContext.of(task.orders, settings)
    work = begin(blank_update(network.modalities, data), network, data, context)
    trained_on, _ = ready(work.objective, data)
    arrays = {n: value.detach().clone() for n, value in _arrays(network).items()}
    # Kept by name: the network is the next client's from here on.
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    rng, own = context.generator("batches"), work.objective.pack()
    return _Member(work, trained_on, rng, own, arrays, trained)


def _train(members: Sequence[_Member]) -> None:
    """Train; members end with their arrays, losses and seconds."""
    started = time.perf_counter()
    objective = members[0].work.objective
    network = objective.network
    try:
        with _training(network):
            arrays, own = [m.arrays for m in members], [m.own for m in members]
            _steps(Stack(objective, arrays, own, members[0].trained), members)
    except RuntimeError as error:
        settings = objective.context.settings
        reason = str(error).strip().split("\n")[0]
        _faults[settings.network, network.modalities, settings.objective] = reason
        raise
    seconds = time.perf_counter() - started
    for member in members:
        member.work.update.metrics["seconds_training"] = seconds / len(members)


def _steps(stack: Stack, members: Sequence[_Member]) -> None:
    """Take steps until all are done; who is done leaves the stack."""
    active = [(member, member.chunks()) for member in members]
    while active:
        drawn = [next(chunks, None) for _, chunks in active]
        staying = [row for row, chunk in enumerate(drawn) if chunk is not None]
        if len(staying) < len(active):
            for row in set(range(len(active))) - set(staying):
                active[row][0].arrays = stack.arrays(row)
            stack.keep(staying)
            active = [active[row] for row in staying]
        if active:
            there = [chunk for chunk in drawn if chunk is not None]
            losses = stack.step(_groups([member for member, _ in active], there))
            for (member, _), chunk, loss in zip(active, there, losses, strict=True):
                member.losses.append(loss)
                member.sizes.append(len(chunk))


def _groups(members: Sequence[_Member], chunks: Sequence[Tensor]) -> list[Group]:
    """Render mini-batches, those of one size together."""
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for row, chunk in enumerate(chunks):
        by_size[len(chunk)].append(row)
    return [
        _group(rows, [members[row] for row in rows], [chunks[row] for row in rows])
        for rows in by_size.values()
    ]


def _group(rows: list[int], members: Sequence[_Member], chunks: Sequence[Tensor]) -> Group:
    modalities = members[0].work.objective.network.modalities
    split = members[0].data.split
    if all(m.data.split is split for m in members) and not any(
        split.renderers[m].augment for m in modalities
    ):
        # Rendering looks at each sample by itself: one call does for all.
        index = torch.cat(list(chunks))
        shape = len(chunks), len(chunks[0])
        inputs = split.batch(index, modalities)
        whole = {m: x.unflatten(0, shape) for m, x in inputs.items()}
        return Group(rows, whole, split.labels_of(index).view(shape))
    pairs = list(zip(members, chunks, strict=True))
    each = [member.data.split.batch(chunk, modalities, member.rng) for member, chunk in pairs]
    labels = torch.stack([member.data.split.labels_of(chunk) for member, chunk in pairs])
    return Group(rows, {m: torch.stack([x[m] for x in each]) for m in modalities}, labels)


def _answer(member: _Member) -> None:
    """Fill in a member's answer as if it had trained alone.

    Raises
    ------
    DivergedError
        If its numbers are not finite.
    """
    work, objective = member.work, member.work.objective
    context, network = objective.context, objective.network
    losses = torch.stack(member.losses)
    losses = losses * torch.tensor(member.sizes, device=losses.device)
    epochs = losses.view(context.settings.local_epochs, -1)
    for epoch, of_epoch in enumerate(epochs):
        check_losses(of_epoch, epoch, member.data, context)
    means = (epochs.sum(dim=1) / len(member.data)).tolist()
    steps = float(len(losses))
    work.update.metrics |= {"loss_first": means[0], "loss": means[-1], "steps": steps}
    with torch.no_grad():
        for name, value in _arrays(network).items():
            value.copy_(member.arrays[name])
    finish(work)
    check_answer(work.update, work.data, context)


def _arrays(network: MultiModalNetwork) -> Tensors:
    """The network's parameters and buffers themselves, by name."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


@contextmanager
def _training(network: MultiModalNetwork) -> Iterator[None]:
    """Switch to training mode, and images to the layout that ``vmap`` knows."""
    encoders = [e for e in network.encoders.values() if isinstance(e, ImageEncoder)]
    layouts = [e.layout for e in encoders]
    for encoder in encoders:
        encoder.layout = torch.contiguous_format
    try:
        network.train()
        yield
    finally:
        network.eval()
        for encoder, layout in zip(encoders, layouts, strict=True):
            encoder.layout = layout
