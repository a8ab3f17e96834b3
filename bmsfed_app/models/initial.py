"""Initial weights, drawn by a seed."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from bmsfed_app.models.network import MultiModalNetwork, NetworkSpec
from strategies.randomness import integer_seed


def build_network(spec: NetworkSpec, seed: int) -> MultiModalNetwork:
    """Build the whole network with its initial weights.

    Linear layers Xavier-normal, convolutions Kaiming-normal by fan-out, batch norm 1 and 0, biases
    0; other modules as they initialise themselves, and whole encoders that ask for it (transformers
    and models of other libraries, whose initial weights belong to their architecture), and weights
    that an encoder's own constructor froze; the head by its own rule, last.

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
    for modality, encoder in network.encoders.items():
        if not getattr(encoder, "own_initialisation", False):
            start = f"encoders.{modality}."
            kept = {n.removeprefix(start) for n in network.fixed if n.startswith(start)}
            _initialise(encoder, rng, kept)
    network.head.reset(rng)
    return network


def _initialise(encoder: nn.Module, rng: torch.Generator, kept: Collection[str]) -> None:
    """Draw an encoder's weights, but those of the names kept."""
    for name, module in encoder.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        if f"{name}.weight" not in kept:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, generator=rng)
            else:
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=rng
                )
        if module.bias is not None and f"{name}.bias" not in kept:
            nn.init.zeros_(module.bias)
