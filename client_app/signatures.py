"""Signatures: the gradients that selection compares (Eqs. 2, 3, 10, 11).

Two kinds of vector per client, over encoder parameters only: ``multi``, the gradient of the
cross-entropy over all encoders, and ``enhance.<modality>``, the gradient that a client offers to
the modality if it is the weak one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.prototypes import enhancement_loss
from bmsfed_app.settings import ClientSettings, SignatureSettings
from client_app.data import LocalData
from client_app.objectives import LocalContext
from client_app.objectives.modal_enhancement import ModalEnhancement
from strategies.sketch import count_sketch

Vectors = dict[str, NDArray[np.float32]]


def decoupled_signatures(
    network: MultiModalNetwork,
    data: LocalData,
    objective: ModalEnhancement,
    context: LocalContext,
    settings: ClientSettings,
    rng: torch.Generator,
) -> Vectors:
    """Measure cross-entropy and enhancing gradients apart, at the received model.

    On ``signature.batches`` mini-batches, in eval mode, so that measuring leaves no trace. A
    client with one modality assigned offers ``CE + beta ME`` of it (second term of Eq. 11);
    with several, ``beta ME`` of each, as if each were the weak one.

    Returns
    -------
    dict
        ``"multi"`` (d,) unless one modality of several held is assigned, and
        ``"enhance.<modality>"`` (d,) for those assigned, where asked for; sketched if so set.
    """
    network.eval()
    parameters = {m: list(e.parameters()) for m, e in network.encoders.items()}
    ce = dict.fromkeys(context.modalities, torch.zeros(()))
    enhancing = dict(ce)
    batches = data.batches(settings.batch_size, context.modalities, rng)
    measured = list(islice(batches, settings.signature.batches))
    for inputs, labels in measured:
        output = network(inputs)
        loss = F.cross_entropy(output.logits, labels) / len(measured)
        _accumulate(ce, gradients(parameters, loss, retain=settings.signature.enhancing))
        if settings.signature.enhancing:
            offered = enhancement_offered(output.features, labels, objective, context)
            _accumulate(enhancing, gradients(parameters, offered / len(measured)))
    vectors = _to_numpy(ce), _to_numpy(enhancing) if settings.signature.enhancing else {}
    partial = len(context.modalities) == 1 < len(data.modalities)
    return _name(*offers(*vectors, partial=partial), network.spec, settings.signature)


def enhancement_offered(
    features: Mapping[str, Tensor],
    labels: Tensor,
    objective: ModalEnhancement,
    context: LocalContext,
) -> Tensor:
    """``beta ME`` of every modality as if it were the weak one, summed (Eqs. 10, 11).

    Parameters
    ----------
    features : mapping
        Features (B, D) of a batch by modality, with gradients.
    labels : Tensor (B,), int64
    """
    single = len(features) == 1
    ratios = (
        dict.fromkeys(features, context.ratio)
        if single
        else objective.batch_ratios(features, labels, context)
    )
    total = torch.zeros((), device=labels.device)
    for m, z in features.items():
        wanted = not single or m == context.weak or objective.uni_enhancement == "always"
        beta = objective.weigh(ratios[m])
        if wanted and beta > 0 and m in context.global_prototypes:
            total = total + beta * enhancement_loss(z, labels, context.global_prototypes[m])
    return total


def offers(ce: Vectors, enhancing: Vectors, *, partial: bool) -> tuple[Vectors | None, Vectors]:
    """What signatures are made of: the joint gradient, and what each modality is offered.

    ``partial``, one modality of several held, says nothing of the joint gradient; with one
    modality the offer is ``CE + beta ME`` (second term of Eq. 11).
    """
    if len(ce) == 1:
        enhancing = {m: ce[m] + v for m, v in enhancing.items()}
    return (None if partial else ce), enhancing


def update_signatures(
    before: dict[str, Tensor],
    network: MultiModalNetwork,
    data: LocalData,
    signature: SignatureSettings,
) -> Vectors:
    """Use the change of the encoders over local training, ``theta_received - theta_trained``.

    Parameters
    ----------
    before : dict
        Encoder parameters as received, flat (d,) by modality: :func:`flat_encoders`.
    """
    after = flat_encoders(network)
    change = _to_numpy({m: before[m] - after[m] for m in before})
    partial = len(change) == 1 < len(data.modalities)
    enhancing = change if signature.enhancing else {}
    return _name(None if partial else change, enhancing, network.spec, signature)


def flat_encoders(network: MultiModalNetwork) -> dict[str, Tensor]:
    """Return copies of the encoders' parameters, one flat vector by modality."""
    return {m: _flat(list(e.parameters())) for m, e in network.encoders.items()}


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def gradients(
    parameters: Mapping[str, list[nn.Parameter]], loss: Tensor, *, retain: bool = False
) -> dict[str, Tensor]:
    """Gradient of a loss by modality, flat (d,), zero where it does not depend on one."""
    flat = [p for group in parameters.values() for p in group]
    if not loss.requires_grad:
        return {m: torch.zeros_like(_flat(group)) for m, group in parameters.items()}
    grads = iter(torch.autograd.grad(loss, flat, retain_graph=retain, allow_unused=True))
    return {
        m: _flat([torch.zeros_like(p) if (g := next(grads)) is None else g for p in group])
        for m, group in parameters.items()
    }


def _accumulate(total: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for m, g in more.items():
        total[m] = total[m].to(g.device) + g


def _to_numpy(vectors: dict[str, Tensor]) -> Vectors:
    return {m: v.cpu().numpy() for m, v in vectors.items()}


def _name(
    multi: Vectors | None, enhancing: Vectors, spec: NetworkSpec, signature: SignatureSettings
) -> Vectors:
    """Sketch, or lay out exactly with zero blocks for modalities that are not there."""
    named: Vectors = {}
    if signature.dim > 0:
        if multi is not None:
            named["multi"] = count_sketch(multi, signature.dim, signature.seed)
        for m, v in enhancing.items():
            named[f"enhance.{m}"] = count_sketch({m: v}, signature.dim, signature.seed)
        return named
    if multi is not None:
        blocks = [multi[m] if m in multi else np.zeros(spec.size(m)) for m in spec.encoders]
        named["multi"] = np.concatenate(blocks).astype(np.float32)
    return named | {f"enhance.{m}": v for m, v in enhancing.items()}
