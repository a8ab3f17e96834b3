"""The multi-modal network: one encoder per modality and a fusion head, by name.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models.encoders import (
    Encoder,
    build_encoder,
    check_encoder,
    encoder_size,
    encoder_width,
)
from bmsfed_app.models.heads import build_head
from strategies import Arrays
from strategies.randomness import integer_seed

_T = TypeVar("_T")


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
    vocabularies : dict
        By modality of token ids: all of them are below it, and 0 is padding.
    widths : dict
        Width of the features by modality; where there is none, the encoder's own.
    """

    encoders: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    feature_norm: float = 0.0
    head: str = "linear"
    head_settings: dict[str, Any] = field(default_factory=dict)
    vocabularies: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)

    def __hash__(self) -> int:  # dictionaries have none; workers cache networks by their spec
        parts = (tuple(self.encoders.items()), self.num_classes, self.feature_norm, self.head)
        return hash(parts)

    def build(self, modality: str) -> Encoder:
        """Build a modality's encoder; see :func:`~bmsfed_app.models.build_encoder`."""
        return self._ask(build_encoder, modality)

    def check(self, modality: str) -> None:
        """Check a modality's encoder; see :func:`~bmsfed_app.models.check_encoder`."""
        self._ask(check_encoder, modality)

    def width(self, modality: str) -> int:
        """Return the width D of a modality's features."""
        return self._ask(encoder_width, modality)

    def size(self, modality: str) -> int:
        """Return the number of parameters of a modality's encoder."""
        return self._ask(encoder_size, modality)

    def _ask(self, function: Callable[..., _T], modality: str) -> _T:
        return function(
            self.encoders[modality],
            tuple(self.shapes[modality]),
            vocabulary=self.vocabularies.get(modality, 0),
            width=self.widths.get(modality, 0),
        )


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
        encoders = {m: spec.build(m) for m in self.modalities}
        self.encoders = nn.ModuleDict(encoders)
        widths = {m: e.width for m, e in encoders.items()}
        total = sum(widths[m] if m in widths else spec.width(m) for m in spec.encoders)
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

    def restart(self, arrays: Arrays) -> Self:
        """Hold these arrays and nothing of earlier use; return itself.

        Processes keep networks from one task to the next: this leaves one in eval mode, with all
        parameters trainable, no gradients, and no gate frozen.

        Raises
        ------
        ValueError
            Naming the first array that is missing, unknown or of another shape.
        """
        own = self.state_dict()
        for name in sorted(set(own) | set(arrays)):
            there = arrays.get(name)
            if name not in own or there is None or tuple(own[name].shape) != there.shape:
                shape = None if there is None else list(there.shape)
                want = list(own[name].shape) if name in own else None
                raise ValueError(
                    f"received array '{name}' has shape {shape}, this app expects {want}"
                )
        self.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in arrays.items()})
        self.requires_grad_().zero_grad(set_to_none=True)
        self.head.release()
        return self.eval()


def build_network(spec: NetworkSpec, seed: int) -> MultiModalNetwork:
    """Build the whole network with its initial weights.

    Linear layers Xavier-normal, convolutions Kaiming-normal by fan-out, batch norm 1 and 0, biases
    0; other modules as they initialise themselves, and whole encoders that ask for it (transformers
    and models of other libraries, whose initial weights belong to their architecture); the head by
    its own rule, last.

    Parameters
    ----------
    spec : NetworkSpec
        What to build.
    seed : int
        Seeds the weights; they depend on nothing else.
    """
    with torch.random.fork_rng(devices=[]):
        # Not the seed itself, or modules' own draws would be those of the layers below.
        torch.default_generator.manual_seed(integer_seed(seed, "modules"))
        network = MultiModalNetwork(spec)
    rng = torch.Generator().manual_seed(seed)
    for encoder in network.encoders.values():
        if not getattr(encoder, "own_initialisation", False):
            _initialise(encoder, rng)
    network.head.reset(rng)
    return network


def _initialise(encoder: nn.Module, rng: torch.Generator) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, generator=rng)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=rng
            )
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


__all__ = ["Encoder", "MultiModalNetwork", "NetworkSpec", "Output", "build_network"]
