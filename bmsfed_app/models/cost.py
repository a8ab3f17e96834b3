"""What a network costs: bytes to send, operations to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bmsfed_app.models.encoders import without_values
from bmsfed_app.models.network import MultiModalNetwork, NetworkSpec


def model_bytes(spec: NetworkSpec) -> int:
    """Return the bytes of the whole network's arrays."""
    network = without_values(lambda: MultiModalNetwork(spec))
    return sum(v.numel() * v.element_size() for v in network.state_dict().values())


def forward_flops(spec: NetworkSpec, modalities: Sequence[str] | None = None) -> float:
    """Return about how many floating-point operations one sample's forward pass takes.

    Two for each weight of a layer at each of its output's positions; products of activations, as
    in attention, are not counted. (torch's own counter loads its compiler, which takes a second.)
    """
    with torch.random.fork_rng([]), torch.no_grad():
        network = MultiModalNetwork(spec, modalities).eval()
        inputs = {
            m: torch.zeros(
                (1, *spec.shapes[m]),
                dtype=torch.int64 if m in spec.vocabularies else torch.float32,
            )
            for m in network.modalities
        }
        counts: list[float] = []
        for layer in network.modules():
            layer.register_forward_hook(lambda *call: counts.append(_flops(*call)))
        network(inputs)
    return sum(counts)


def _flops(layer: nn.Module, inputs: Any, output: Any) -> float:
    """Operations of a layer's own weights."""
    weights = sum(p.numel() for p in layer.parameters(recurse=False) if p.dim() > 1)
    if not weights or isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return 0.0
    made = output[0] if isinstance(output, tuple) else output
    if not torch.is_tensor(made):
        return 2.0 * weights
    channels = made.shape[1] if isinstance(layer, _ConvNd) else made.shape[-1]
    return 2.0 * weights * made.numel() / channels
