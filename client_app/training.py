"""Local work of one client: train just the encoders assigned, measure what the server needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.devices import Precision, find_precision, prepare_device
from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.models.batches import batch_fault
from bmsfed_app.settings import ClientSettings
from client_app.counting import count_right
from client_app.data import LocalData, training_device
from client_app.divergence import check_answer, check_losses
from client_app.features import extract_features, local_prototypes, measure
from client_app.objectives import LocalContext, Needs, Objective, build_objective
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.sample_dropout import dropped
from client_app.signatures import (
    Vectors,
    decoupled_signatures,
    flat_signed,
    update_signatures,
)
from strategies import SignatureOrders, Task, Update
from strategies.protocol import owner


def run_task(task: Task, data: LocalData, settings: ClientSettings) -> Update:
    """Do what the server asked for.

    Parameters
    ----------
    task : Task
        Orders, and the parts of the model that they need. To "measure" is to answer signatures,
        prototypes and ratios at the received model, with local prototypes in place of global
        ones; for the "loss", that and nothing else; to "test" is to count what is right of the
        samples held out. None of these returns parts.
    data : LocalData
        The client's training data.
    settings : ClientSettings
        What the experiment tells everybody.

    Returns
    -------
    Update
        With the parts that were trained and the method's measurements.

    Raises
    ------
    ValueError
        If the task names a modality that the client lacks, or parts that do not fit the network.
    DivergedError
        If what is to be answered is NaN or infinite.
    """
    started = time.perf_counter()
    data = data.having(task.orders.modalities)
    network = received_network(task, data, settings)
    update = blank_update(network.modalities, data)
    context = LocalContext.of(task.orders, settings)
    if task.orders.kind == "test":
        update.metrics |= count_right(network, data.tested, task.orders.method_state)
    elif task.orders.kind == "loss":
        update.measurements = {"loss": _mean_loss(network, data)}
    else:
        with _seeded_modules(context):
            _work(update, network, data, context)
    check_answer(update, data, context)
    update.metrics["seconds"] = time.perf_counter() - started
    return update


def blank_update(modalities: Sequence[str], data: LocalData) -> Update:
    """An answer that says who it is from and what that client holds, and nothing else yet."""
    who, held = data.client_id, data.modalities
    present = {m: int(mask.sum()) for m, mask in data.gaps(modalities).items()}
    return Update(who, tuple(modalities), len(data), sender=who, held=held, present=present)


def received_network(task: Task, data: LocalData, settings: ClientSettings) -> MultiModalNetwork:
    """Return this process's network of the modalities assigned, with the arrays received.

    Raises
    ------
    ValueError
        If the client lacks a modality, or the arrays do not fit.
    """
    if lacking := sorted(set(task.orders.modalities) - set(data.modalities)):
        raise ValueError(f"client '{data.client_id}' was told to train '{lacking[0]}', it lacks it")
    return _network_for(task, settings).restart(task.arrays)


def _network_for(task: Task, settings: ClientSettings) -> MultiModalNetwork:
    """Return the process's network of the modalities assigned, wherever its arrays are from."""
    device = training_device(settings)
    precision = find_precision(settings.precision, device)
    prepare_device(device, precision)
    modalities = task.orders.modalities
    # Columns of modalities that the client lacks come where something stands for their features.
    owners = {owner(name) for name in task.arrays if name.startswith("head.")}
    columns = tuple(sorted({m for m in owners if m} - set(modalities)))
    return _network(settings.network, modalities, columns, device, precision, settings.compile)


@lru_cache(maxsize=8)
def _network(
    spec: NetworkSpec,
    modalities: tuple[str, ...],
    columns: tuple[str, ...],
    device: torch.device,
    precision: Precision,
    compiled: bool,
) -> MultiModalNetwork:
    network = MultiModalNetwork(spec, modalities, columns).to(device)
    return network.compute(precision, compiled=compiled)


@dataclass
class Work:
    """One client's task, once the received model has been measured.

    Attributes
    ----------
    update : Update
        The answer, filled in bit by bit.
    objective : Objective
        Bound to network and context.
    data : LocalData
    received : dict
        What is signed of the received model, flat (d,) by modality; empty where nothing is signed
        by what changes.
    """

    update: Update
    objective: Objective
    data: LocalData
    received: dict[str, Tensor]


def _work(
    update: Update, network: MultiModalNetwork, data: LocalData, context: LocalContext
) -> None:
    """Measure what the server needs, train unless this is a measurement, fill in the answer."""
    work = begin(update, network, data, context)
    signature = context.orders.signature
    if context.orders.kind == "train":
        started = time.perf_counter()
        update.metrics |= train(work.objective, data)
        update.metrics["seconds_training"] = time.perf_counter() - started
    elif signature and signature.gradient == "update":
        train(work.objective, data, max_steps=1)
    finish(work)


def begin(
    update: Update, network: MultiModalNetwork, data: LocalData, context: LocalContext
) -> Work:
    """Measure the received model: what the objective needs, and what is signed by gradients."""
    orders, settings = context.orders, context.settings
    objective = build_objective(settings.objective, settings.objective_settings)
    objective.bind(network, context)
    if (orders.kind == "measure" and _wanted(context)) or _needs_features(objective):
        # At the received model; a pass over the data, so only where it is needed, and once.
        context.features = extract_features(network, data)
    gaps = data.gaps(context.features)
    context.begin(local_prototypes(context.features, data.labels, data.num_classes, gaps))
    if orders.signature and orders.signature.gradient == "decoupled":
        update.signatures = _signatures(objective, orders.signature, data)
    by_update = orders.signature is not None and orders.signature.gradient == "update"
    return Work(update, objective, data, flat_signed(network) if by_update else {})


def finish(work: Work) -> None:
    """Fill in the answer from the network as it is now."""
    update, objective, data = work.update, work.objective, work.data
    context, network = objective.context, objective.network
    orders, wanted = context.orders, _wanted(context)
    final = context.features
    if orders.kind == "train":
        needed = wanted or Needs.TRAINED_FEATURES in objective.needs
        final = extract_features(network, data) if needed else {}
        update.measurements = objective.after_training(final, data)
        update.metrics |= objective.metrics()
        update.arrays = {
            name: torch.empty(value.shape, dtype=value.dtype).copy_(value).numpy()
            for name, value in network.state_dict().items()
            if name not in network.frozen and not name.startswith(objective.kept_back)
        }
    else:
        update.measurements = objective.after_measuring(final, data)
    if wanted:
        kind, least = context.settings.ratio_kind, data.min_class_count
        gaps = data.gaps(final)
        measure(update, final, data.labels, data.num_classes, kind, least, gaps)
    if orders.signature and orders.signature.gradient == "update":
        held = len(data.modalities)
        update.signatures = update_signatures(work.received, network, orders.signature, held=held)


def _wanted(context: LocalContext) -> bool:
    """Whether the server wants prototypes and ratios."""
    return context.settings.prototypes or context.orders.measure_prototypes


def _needs_features(objective: Objective) -> bool:
    """Whether the objective, or what is signed by it, looks at features of the received model."""
    signature = objective.context.orders.signature
    signing = signature and signature.gradient == "decoupled" and signature.enhancing
    comparing = signing or Needs.LOCAL_PROTOTYPES in objective.needs
    several = len(objective.network.modalities) > 1
    return Needs.FEATURES in objective.needs or bool(several and comparing)


def _signatures(objective: Objective, orders: SignatureOrders, data: LocalData) -> Vectors:
    """Measure decoupled signatures on some mini-batches."""
    network, context = objective.network, objective.context
    if not isinstance(objective, ModalEnhancement):
        objective = ModalEnhancement.by_default().bind(network, context)
    modalities = context.orders.modalities
    parameters = {m: network.signed(m) for m in modalities}
    rng = context.generator("signature")
    drawn = data.batches(context.settings.batch_size, modalities, rng)
    batches = list(islice(drawn, orders.probe_batches))
    outputs = ((network(inputs), labels) for inputs, labels in batches)
    held = len(data.modalities)
    return decoupled_signatures(objective, orders, parameters, outputs, len(batches), held=held)


def train(
    objective: Objective, data: LocalData, *, max_steps: int | None = None
) -> dict[str, float]:
    """Train with a fresh optimiser, all but what the network or the objective freezes.

    Parameters
    ----------
    objective : Objective
        Bound to the network, which is changed in place, and to the context, whose settings and
        seed say how.
    max_steps : int, optional
        Stop after so many mini-batches.

    Returns
    -------
    dict
        ``loss_first`` and ``loss``: mean loss over the first and the last epoch; ``steps``. Of
        these ``steps`` alone, 0, where nothing is left to train.

    Raises
    ------
    ValueError
        If there are too few samples for a network that normalises over batches.
    DivergedError
        After the first epoch with a loss that is not finite.
    """
    network, settings = objective.network, objective.context.settings
    rng, losing = (objective.context.generator(p) for p in ("batches", "sample dropout"))
    data, parameters = ready(objective, data)
    if not parameters:  # FedPAC, whose head stands still here, where all encoders do as well
        return {"steps": 0.0}
    size, least = settings.batch_size, network.least_batch
    optimizer = objective.context.optimizer(parameters)
    epochs: list[Tensor] = []
    steps = 0
    for epoch in range(settings.local_epochs):
        objective.on_epoch(data, epoch)
        network.train()
        losses = []
        for inputs, labels in data.batches(size, network.modalities, rng, least=least):
            if settings.sample_dropout > 0 and len(inputs) > 1:
                inputs = dropped(inputs, settings.sample_dropout, losing)
            objective.on_batch(inputs)
            output = network(inputs)
            loss = objective.total(output, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            objective.after_backward(output, labels)
            if settings.clip_norm > 0:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            losses.append(loss.detach() * len(labels))
            steps += 1
            if steps == max_steps:
                return {"loss": float(losses[-1]) / len(labels), "steps": float(steps)}
        check_losses(torch.stack(losses), epoch, data, objective.context)
        epochs.append(torch.stack(losses).sum() / len(data))
    return {"loss_first": float(epochs[0]), "loss": float(epochs[-1]), "steps": float(steps)}


def ready(objective: Objective, data: LocalData) -> tuple[LocalData, list[nn.Parameter]]:
    """Let the objective start; return the samples and the parameters to train, of all others none.

    Raises
    ------
    ValueError
        If there are too few samples for a network that normalises over batches, or some lack a
        modality and the objective allows none.
    """
    network, settings = objective.network, objective.context.settings
    data = objective.training_data(data)
    who, size = data.client_id, settings.batch_size
    if objective.no_gaps and (gaps := data.gaps(network.modalities)):
        raise ValueError(
            f"samples of client '{who}' lack '{next(iter(gaps))}', but with the objective "
            f"'{settings.objective}' {objective.no_gaps}: set missing.complete_only=true, or "
            "choose another method"
        )
    if fault := batch_fault(network.spec, who, network.modalities, len(data), size):
        raise ValueError(fault)
    objective.on_start(data)
    return data, _trainable(network, objective)


def _trainable(network: MultiModalNetwork, objective: Objective) -> list[nn.Parameter]:
    """Parameters that mini-batches train; the others get no gradient from here on."""
    for name, parameter in network.named_parameters():
        trained = name not in network.frozen and not name.startswith(objective.frozen)
        parameter.requires_grad_(trained)
    return [p for p in network.parameters() if p.requires_grad]


@torch.inference_mode()
def _mean_loss(network: MultiModalNetwork, data: LocalData) -> NDArray[np.float32]:
    """Mean cross-entropy (1,) over the client's samples at the received model, in eval mode."""
    logits = network.head(extract_features(network, data), data.gaps(network.modalities))
    return np.array([float(F.cross_entropy(logits, data.labels))], np.float32)


@contextmanager
def _seeded_modules(context: LocalContext) -> Iterator[None]:
    """Seed what modules such as dropout draw themselves, and leave no trace of it."""
    device = training_device(context.settings)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(context.seed("modules"))
        yield
