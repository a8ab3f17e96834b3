"""The multi-modal network: one encoder per modality and a fusion head, by name.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models.encoders import Encoder, build_encoder, encoder_width
from bmsfed_app.models.heads import build_head


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made of; plain values, so that it can travel as JSON.

    Attributes
    ----------
    encoders : dict
        Encoder name by modality, in the order of the data set.
    shapes : dict
        Shape of one input by modality.
    num_classes : int
        Classes K.
    feature_norm : float
        If above 0, every feature is scaled to this Euclidean norm before head and prototypes.
    head : str
        Name of the fusion head.
    head_settings : dict
        Of the head.
    """

    encoders: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    feature_norm: float = 0.0
    head: str = "linear"
    head_settings: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:  # dictionaries have none; workers cache networks by their spec
        parts = (tuple(self.encoders.items()), self.num_classes, self.feature_norm, self.head)
        return hash(parts)


@dataclass
class Output:
    """What a network returns.

    Attributes
    ----------
    features : dict
        Features (B, D) by modality.
    logits : Tensor (B, K)
    parts : dict
        What each modality contributes to the logits, (B, K): see the head.
    """

    features: dict[str, Tensor]
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class MultiModalNetwork(nn.Module):
    """Encoders by modality and a fusion head; state-dict names begin with their part.

    Parameters
    ----------
    spec : NetworkSpec
        The whole network.
    modalities : sequence of str, optional
        Build only these encoders and head columns; all by default. The order is the spec's.

    Raises
    ------
    ValueError
        If an encoder is unknown or cannot take its input, or a modality is not in the spec.
    """

    def __init__(self, spec: NetworkSpec, modalities: Sequence[str] | None = None) -> None:
        super().__init__()
        wanted = set(spec.encoders if modalities is None else modalities)
        if unknown := sorted(wanted - set(spec.encoders)):
            raise ValueError(
                f"unknown modality '{unknown[0]}' (the network has {', '.join(spec.encoders)})"
            )
        self.spec = spec
        self.modalities = tuple(m for m in spec.encoders if m in wanted)
        encoders = {m: build_encoder(spec.encoders[m], spec.shapes[m]) for m in self.modalities}
        self.encoders = nn.ModuleDict(encoders)
        widths = {m: e.width for m, e in encoders.items()}
        total = sum(
            widths[m] if m in widths else encoder_width(name, tuple(spec.shapes[m]))
            for m, name in spec.encoders.items()
        )
        self.head = build_head(spec.head, widths, spec.num_classes, spec.head_settings, total)

    def encode(self, modality: str, x: Tensor) -> Tensor:
        """Return the features (B, D) of one modality's inputs."""
        z: Tensor = self.encoders[modality](x)
        if self.spec.feature_norm > 0:
            z = F.normalize(z, dim=1) * self.spec.feature_norm
        return z

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Run the encoders of the modalities in ``inputs``, and the head on their features."""
        features = {m: self.encode(m, inputs[m]) for m in self.modalities if m in inputs}
        parts = self.head.parts(features)
        return Output(features, self.head.fuse(parts), parts)


def build_network(spec: NetworkSpec, seed: int) -> MultiModalNetwork:
    """Build the whole network with its initial weights.

    Linear layers Xavier-normal, convolutions Kaiming-normal by fan-out, batch norm 1 and 0, biases
    0; the head by its own rule, last.

    Parameters
    ----------
    spec : NetworkSpec
        What to build.
    seed : int
        Seeds the weights.
    """
    network = MultiModalNetwork(spec)
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, generator=rng)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=rng
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    network.head.reset(rng)
    return network


__all__ = ["Encoder", "MultiModalNetwork", "NetworkSpec", "Output", "build_network"]
