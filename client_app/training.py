"""Local work of one client: train just the encoders assigned, measure what the server needs."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.prototypes import ClassMeans, class_means, hits, score
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData, training_device
from client_app.objectives import LocalContext, Objective, build_objective
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.signatures import decoupled_signatures, flat_encoders, update_signatures
from strategies import Prototypes, Task, Update, imbalance_ratios
from strategies.randomness import integer_seed

#: Samples per forward pass without gradients.
_FEATURE_BATCH = 256


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
        prototypes in place of global ones; no parts are returned.

    Returns
    -------
    Update
        With the parts that were trained.

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
    objective = build_objective(settings.objective, settings.objective_settings)
    measuring = settings.signature.kind == "decoupled"
    comparing = len(network.modalities) > 1 and (objective.needs_local_prototypes or measuring)
    # At the received model; a pass over the data, so only where it is needed, and once.
    features = extract_features(network, data) if probe or comparing else {}
    context = _context(task, data, settings, features, probe=probe)
    update = Update(data.client_id, network.modalities, len(data))
    rng = torch.Generator()
    if measuring:
        rng.manual_seed(_seed(settings, "signature"))
        measure = objective if isinstance(objective, ModalEnhancement) else ModalEnhancement()
        update.signatures = decoupled_signatures(network, data, measure, context, settings, rng)
    rng.manual_seed(_seed(settings, "batches"))
    received = flat_encoders(network)
    if probe:
        _measure(update, features, data, settings)
        if settings.signature.kind == "update":
            train(network, data, objective, context, settings, rng, max_steps=1)
    else:
        trained = time.perf_counter()
        update.metrics |= train(network, data, objective, context, settings, rng)
        update.metrics["seconds_training"] = time.perf_counter() - trained
        if settings.prototypes:
            _measure(update, extract_features(network, data), data, settings)
        state = network.state_dict().items()
        update.arrays = {name: np.array(value.cpu().numpy(), order="C") for name, value in state}
    if settings.signature.kind == "update":
        update.signatures = update_signatures(received, network, data, settings.signature)
    update.metrics["seconds"] = time.perf_counter() - started
    return update


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
    """Train all parameters of ``network`` by SGD with a fresh optimiser.

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
    network.train()
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    epochs: list[Tensor] = []
    steps = 0
    for _ in range(settings.local_epochs):
        losses = []
        for inputs, labels in data.batches(settings.batch_size, network.modalities, rng):
            loss = objective.loss(network, network(inputs), labels, context)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm > 0:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            losses.append(loss.detach() * len(labels))
            steps += 1
            if steps == max_steps:
                return {"loss": float(losses[-1]) / len(labels), "steps": float(steps)}
        epochs.append(torch.stack(losses).sum() / len(data))
    return {"loss_first": float(epochs[0]), "loss": float(epochs[-1]), "steps": float(steps)}


@torch.inference_mode()
def extract_features(network: MultiModalNetwork, data: LocalData) -> dict[str, Tensor]:
    """Features (n, D) of all the client's samples by modality, in eval mode, in order."""
    network.eval()
    chunks = [
        network(inputs).features for inputs, _ in data.batches(_FEATURE_BATCH, network.modalities)
    ]
    return {m: torch.cat([c[m] for c in chunks]) for m in network.modalities}


def local_prototypes(features: dict[str, Tensor], data: LocalData) -> dict[str, ClassMeans]:
    """Class means of the client's features (n, D) by modality (Eq. 5)."""
    return {m: class_means(z, data.labels, data.num_classes) for m, z in features.items()}


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
    context = LocalContext(task.modalities, settings.weak, settings.ratio)
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


def _seed(settings: ClientSettings, purpose: str) -> int:
    return integer_seed(settings.seed, purpose, settings.round, settings.client_id)
