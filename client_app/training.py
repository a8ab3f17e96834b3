"""Local work of one client: train just the encoders assigned, measure what the server needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.prototypes import ClassMeans, hits, score
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData, training_device
from client_app.features import extract_features, local_prototypes
from client_app.objectives import LocalContext, Objective, build_objective
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.signatures import decoupled_signatures, flat_encoders, update_signatures
from strategies import Prototypes, Task, Update, imbalance_ratios
from strategies.randomness import integer_seed


def run_task(task: Task, data: LocalData, settings: ClientSettings, *, probe: bool) -> Update:
    """Do what the server asked for.

    Parameters
    ----------
    task : Task
        Modalities, their parts of the model, global prototypes.
    data : LocalData
        The client's training data.
    settings : ClientSettings
        From the task.
    probe : bool
        Measure only: signatures, prototypes and ratios at the received model, with local
        prototypes in place of global ones, or just the loss; no parts are returned.

    Returns
    -------
    Update
        With the parts that were trained and the method's measurements.

    Raises
    ------
    ValueError
        If the task names a modality that the client lacks, or parts that do not fit the network.
    """
    started = time.perf_counter()
    if lacking := sorted(set(task.modalities) - set(data.modalities)):
        raise ValueError(f"client '{data.client_id}' was told to train '{lacking[0]}', it lacks it")
    network = _network(settings.network, task.modalities, str(training_device(settings)))
    load_parts(network, task)
    update = Update(data.client_id, network.modalities, len(data))
    if probe and settings.probe_kind == "loss":
        update.measurements = {"loss": _mean_loss(network, data)}
    else:
        objective = build_objective(settings.objective, settings.objective_settings)
        with _seeded_modules(settings):
            _work(update, network, objective, task, data, settings, probe)
    update.metrics["seconds"] = time.perf_counter() - started
    return update


def _work(
    update: Update,
    network: MultiModalNetwork,
    objective: Objective,
    task: Task,
    data: LocalData,
    settings: ClientSettings,
    probe: bool,
) -> None:
    """Measure what the server needs, train unless this is a probe, and fill in the answer."""
    measuring = settings.signature.kind == "decoupled"
    comparing = len(network.modalities) > 1 and (
        objective.needs_local_prototypes or (measuring and settings.signature.enhancing)
    )
    # At the received model; a pass over the data, so only where it is needed, and once.
    needed = (probe and settings.prototypes) or comparing or objective.needs_features
    features = extract_features(network, data) if needed else {}
    context = _context(task, data, settings, features, probe=probe)
    rng = torch.Generator()
    if measuring:
        rng.manual_seed(_seed(settings, "signature"))
        measure = objective if isinstance(objective, ModalEnhancement) else ModalEnhancement()
        update.signatures = decoupled_signatures(network, data, measure, context, settings, rng)
    rng.manual_seed(_seed(settings, "batches"))
    received = flat_encoders(network)
    if probe:
        if settings.prototypes:
            _measure(update, features, data, settings)
        if settings.signature.kind == "update":
            train(network, data, objective, context, settings, rng, max_steps=1)
    else:
        trained = time.perf_counter()
        update.metrics |= train(network, data, objective, context, settings, rng)
        update.metrics["seconds_training"] = time.perf_counter() - trained
        final: dict[str, Tensor] = {}
        if settings.prototypes or objective.needs_trained_features:
            final = extract_features(network, data)
        if settings.prototypes:
            _measure(update, final, data, settings)
        update.measurements = objective.after_training(network, final, data, context)
        update.arrays = {
            name: np.array(value.cpu().numpy(), order="C")
            for name, value in network.state_dict().items()
            if not name.startswith(objective.kept_back)
        }
    if settings.signature.kind == "update":
        update.signatures = update_signatures(received, network, data, settings.signature)


def train(
    network: MultiModalNetwork,
    data: LocalData,
    objective: Objective,
    context: LocalContext,
    settings: ClientSettings,
    rng: torch.Generator,
    *,
    max_steps: int | None = None,
) -> dict[str, float]:
    """Train ``network`` by SGD with a fresh optimiser, all but what the objective freezes.

    Parameters
    ----------
    network : MultiModalNetwork
        Holds just what is to be trained; changed in place.
    rng : torch.Generator
        Draws the order of the samples.
    max_steps : int, optional
        Stop after so many mini-batches.

    Returns
    -------
    dict
        ``loss_first`` and ``loss``: mean loss over the first and the last epoch; ``steps``.
    """
    data = objective.training_data(data, context)
    objective.on_start(network, data, context)
    parameters = _trainable(network, objective)
    optimizer = torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    epochs: list[Tensor] = []
    steps = 0
    for epoch in range(settings.local_epochs):
        objective.on_epoch(network, data, context, epoch)
        network.train()
        losses = []
        for inputs, labels in data.batches(settings.batch_size, network.modalities, rng):
            output = network(inputs)
            loss = objective.loss(network, output, labels, context)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            objective.after_backward(network, output, labels, context)
            if settings.clip_norm > 0:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            losses.append(loss.detach() * len(labels))
            steps += 1
            if steps == max_steps:
                return {"loss": float(losses[-1]) / len(labels), "steps": float(steps)}
        epochs.append(torch.stack(losses).sum() / len(data))
    return {"loss_first": float(epochs[0]), "loss": float(epochs[-1]), "steps": float(steps)}


def _trainable(network: MultiModalNetwork, objective: Objective) -> list[nn.Parameter]:
    """Parameters that mini-batches train; the others get no gradient (workers keep networks)."""
    trainable = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(objective.frozen))
        if parameter.requires_grad:
            trainable.append(parameter)
    return trainable


@torch.inference_mode()
def _mean_loss(network: MultiModalNetwork, data: LocalData) -> NDArray[np.float32]:
    """Mean cross-entropy (1,) over the client's samples at the received model, in eval mode."""
    logits = network.head(extract_features(network, data))
    return np.array([float(F.cross_entropy(logits, data.labels))], np.float32)


def load_parts(network: MultiModalNetwork, task: Task) -> None:
    """Load the received parts; they must be exactly those of the network.

    Raises
    ------
    ValueError
        Naming the first array that is missing, unknown or of another shape.
    """
    own = network.state_dict()
    for name in sorted(set(own) | set(task.arrays)):
        there = task.arrays.get(name)
        if name not in own or there is None or tuple(own[name].shape) != there.shape:
            shape = None if there is None else list(there.shape)
            want = list(own[name].shape) if name in own else None
            raise ValueError(f"received array '{name}' has shape {shape}, this app expects {want}")
    network.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in task.arrays.items()})


@lru_cache(maxsize=8)
def _network(spec_key: NetworkSpec, modalities: tuple[str, ...], device: str) -> MultiModalNetwork:
    return MultiModalNetwork(spec_key, modalities).to(device)


def _context(
    task: Task,
    data: LocalData,
    settings: ClientSettings,
    features: dict[str, Tensor],
    *,
    probe: bool,
) -> LocalContext:
    context = LocalContext(
        task.modalities,
        settings.weak,
        settings.ratio,
        features=features,
        progress=settings.progress,
        state=settings.method_state,
        origin=(settings.seed, settings.round, settings.client_id),
        batch_size=settings.batch_size,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
    )
    context.local_prototypes = local_prototypes(features, data)
    if probe:  # nobody knows global prototypes or the weak modality yet
        context.global_prototypes = context.local_prototypes
        context.weak = task.modalities[0] if len(task.modalities) == 1 else None
        return context
    device = training_device(settings)
    context.global_prototypes = {
        m: ClassMeans(torch.tensor(p.means, device=device), torch.tensor(p.counts, device=device))
        for m, p in task.prototypes.items()
    }
    return context


def _measure(
    update: Update, features: dict[str, Tensor], data: LocalData, settings: ClientSettings
) -> None:
    """Add local prototypes and, over the whole local set, imbalance ratios (Eqs. 5, 16, 17)."""
    means = local_prototypes(features, data)
    update.prototypes = {
        m: Prototypes(p.means.cpu().numpy(), p.counts.cpu().numpy()) for m, p in means.items()
    }
    rate = hits if settings.ratio_kind == "accuracy" else score
    update.scores = {m: rate(z, data.labels, means[m]) for m, z in features.items()}
    if len(features) > 1:
        update.ratios = imbalance_ratios(update.scores)


@contextmanager
def _seeded_modules(settings: ClientSettings) -> Iterator[None]:
    """Seed what modules such as dropout draw themselves, and leave no trace of it."""
    device = training_device(settings)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(settings, "modules"))
        yield


def _seed(settings: ClientSettings, purpose: str) -> int:
    return integer_seed(settings.seed, purpose, settings.round, settings.client_id)
