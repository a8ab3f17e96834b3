"""Signatures: the gradients that selection compares (Eqs. 2, 3, 10, 11).

Two kinds of vector per client, over encoder parameters only: ``multi``, the gradient of the
cross-entropy over all encoders, and ``enhance.<modality>``, the gradient that a client offers to
the modality if it is the weak one. Frozen parameters have no part in them. Where an encoder is
frozen as a whole, the modality's own part of the head stands in for it; enhancement then offers 0,
since it reaches features only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, NetworkSpec, Output
from bmsfed_app.prototypes import enhancement_loss
from client_app.objectives.modal_enhancement import ModalEnhancement
from strategies import SignatureOrders
from strategies.selection.sketch import count_sketch

Vectors = dict[str, NDArray[np.float32]]
Parameters = Mapping[str, list[nn.Parameter]]


def decoupled_signatures(
    objective: ModalEnhancement,
    orders: SignatureOrders,
    parameters: Parameters,
    batches: Iterable[tuple[Output, Tensor]],
    count: int,
    *,
    held: int,
    retain: bool = False,
) -> Vectors:
    """Measure cross-entropy and enhancing gradients apart, at the received model.

    A client with one modality assigned offers ``CE + beta ME`` of it (second term of Eq. 11);
    with several, ``beta ME`` of each, as if each were the weak one.

    Parameters
    ----------
    objective : ModalEnhancement
        Says what enhances, bound to the task's context.
    parameters : mapping
        What is signed, by modality assigned.
    batches : iterable of (Output, Tensor)
        The network's outputs on ``count`` mini-batches, in eval mode so that measuring leaves no
        trace, and their labels.
    held : int
        How many modalities the client holds.
    retain : bool
        Whether the outputs' graphs are needed afterwards.

    Returns
    -------
    dict
        ``"multi"`` (d,) unless one modality of several held is assigned, and
        ``"enhance.<modality>"`` (d,) for those assigned, where asked for; sketched if so set.
    """
    ce = dict.fromkeys(parameters, torch.zeros(()))
    enhancing = dict(ce) if orders.enhancing else {}
    for output, labels in batches:
        loss = F.cross_entropy(output.logits, labels) / count
        _accumulate(ce, gradients(parameters, loss, retain=retain or orders.enhancing))
        if orders.enhancing:
            offered = enhancement_offered(objective, output, labels) / count
            _accumulate(enhancing, gradients(parameters, offered, retain=retain))
    joint, offers = _to_numpy(ce), _to_numpy(enhancing)
    if len(joint) == 1:
        offers = {m: joint[m] + v for m, v in offers.items()}
    return _name(joint, offers, held, objective.context.settings.network, orders)


def enhancement_offered(objective: ModalEnhancement, output: Output, labels: Tensor) -> Tensor:
    """``beta ME`` of every modality as if it were the weak one, summed (Eqs. 10, 11).

    Parameters
    ----------
    output : Output
        Of a batch, with features' gradients.
    labels : Tensor (B,), int64
    """
    orders, known = objective.context.orders, objective.context.global_prototypes
    features, single = output.features, len(output.features) == 1
    if single:
        ratios = dict.fromkeys(features, orders.ratio)
    else:
        found = objective.batch_ratios(features, labels, output.present)
        ratios = dict(zip(features, found.tolist(), strict=True))
    total = torch.zeros((), device=labels.device)
    for m, z in features.items():
        wanted = not single or m == orders.weak or objective.uni_enhancement == "always"
        beta = objective.weigh(ratios[m])
        if wanted and beta > 0 and m in known:
            rows = output.of(m, z), output.of(m, labels)
            total = total + beta * enhancement_loss(*rows, known[m])
    return total


def update_signatures(
    before: dict[str, Tensor], network: MultiModalNetwork, orders: SignatureOrders, *, held: int
) -> Vectors:
    """Use the change of what is signed over local training, ``theta_received - theta_trained``.

    Parameters
    ----------
    before : dict
        What is signed as received, flat (d,) by modality: :func:`flat_signed`.
    held : int
        How many modalities the client holds.
    """
    after = flat_signed(network)
    change = _to_numpy({m: before[m] - after[m] for m in before})
    return _name(change, change if orders.enhancing else {}, held, network.spec, orders)


def flat_signed(network: MultiModalNetwork) -> dict[str, Tensor]:
    """Return copies of what is signed, one flat vector by modality."""
    return {m: _flat(network.signed(m)) for m in network.modalities}


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors]) if tensors else torch.zeros(0)


def gradients(parameters: Parameters, loss: Tensor, *, retain: bool = False) -> dict[str, Tensor]:
    """Gradient of a loss by modality, flat (d,), zero where it does not depend on one."""
    flat = [p for group in parameters.values() for p in group]
    if not loss.requires_grad or not flat:
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
    joint: Vectors, offers: Vectors, held: int, spec: NetworkSpec, orders: SignatureOrders
) -> Vectors:
    """Sketch, or lay out exactly with zero blocks for modalities that are not there.

    One modality of several held says nothing of the joint gradient.
    """
    named: Vectors = {}
    if orders.sketch_dim > 0:
        vectors = {f"enhance.{m}": {m: v} for m, v in offers.items()}
        if len(joint) > 1 or held == 1:
            vectors = {"multi": joint, **vectors}
        return {n: count_sketch(v, orders.sketch_dim, orders.seed) for n, v in vectors.items()}
    if len(joint) > 1 or held == 1:
        blocks = [joint[m] if m in joint else np.zeros(spec.signed_size(m)) for m in spec.encoders]
        named["multi"] = np.concatenate(blocks).astype(np.float32)
    return named | {f"enhance.{m}": v for m, v in offers.items()}
