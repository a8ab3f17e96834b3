"""The multi-modal network: one encoder per modality and a fusion head, by name.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models.encoders import Encoder, build_encoder


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
    """

    encoders: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    feature_norm: float = 0.0

    def __hash__(self) -> int:  # dictionaries have none; workers cache networks by their spec
        return hash((tuple(self.encoders.items()), self.num_classes, self.feature_norm))


@dataclass
class Output:
    """What a network returns: features (B, D) by modality, and logits (B, K)."""

    features: dict[str, Tensor]
    logits: Tensor


class FusionHead(nn.Module):
    """``logits = W · concat_m(z_m) + b``, with W kept as one block of columns per modality.

    A modality that is not there contributes nothing, as a zero block would; the bias is used
    whole. Parameters are named ``weight.<modality>`` (K, D) and ``bias`` (K,), so the columns of
    a modality travel and are averaged with it.
    """

    def __init__(self, widths: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.weight = nn.ParameterDict(
            {m: nn.Parameter(torch.empty(num_classes, d)) for m, d in widths.items()}
        )
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Fuse features (B, D) by modality into logits (B, K)."""
        logits: Tensor = self.bias
        for modality, z in features.items():
            logits = logits + F.linear(z, self.weight[modality])
        return logits


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
        self.head = FusionHead({m: e.width for m, e in encoders.items()}, spec.num_classes)

    def encode(self, modality: str, x: Tensor) -> Tensor:
        """Return the features (B, D) of one modality's inputs."""
        z: Tensor = self.encoders[modality](x)
        if self.spec.feature_norm > 0:
            z = F.normalize(z, dim=1) * self.spec.feature_norm
        return z

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Run the encoders of the modalities in ``inputs``, and the head on their features."""
        features = {m: self.encode(m, inputs[m]) for m in self.modalities if m in inputs}
        return Output(features, self.head(features))


def build_network(spec: NetworkSpec, seed: int) -> MultiModalNetwork:
    """Build the whole network with its initial weights.

    Linear layers Xavier-normal (the head as one matrix over all modalities), convolutions
    Kaiming-normal by fan-out, batch norm 1 and 0, biases 0.

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
    _init_head(network.head, rng)
    return network


def _init_head(head: FusionHead, rng: torch.Generator) -> None:
    blocks = list(head.weight.values())
    whole = torch.empty(blocks[0].shape[0], sum(b.shape[1] for b in blocks))
    nn.init.xavier_normal_(whole, generator=rng)
    with torch.no_grad():
        for block, values in zip(
            blocks, whole.split([b.shape[1] for b in blocks], dim=1), strict=True
        ):
            block.copy_(values)


__all__ = ["Encoder", "FusionHead", "MultiModalNetwork", "NetworkSpec", "Output", "build_network"]
