"""What a network costs: bytes to send, operations to run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from bmsfed_app.models.encoders import without_values
from bmsfed_app.models.network import MultiModalNetwork, NetworkSpec


def model_bytes(spec: NetworkSpec) -> int:
    """Return the bytes of the whole network's arrays."""
    network = without_values(lambda: MultiModalNetwork(spec))
    return sum(v.numel() * v.element_size() for v in network.state_dict().values())


def forward_flops(spec: NetworkSpec, modalities: Sequence[str] | None = None) -> float:
    """Return the floating-point operations of one sample's forward pass.

    Counted without computing anything; infinite for a network that needs values to run.
    """
    network = without_values(lambda: MultiModalNetwork(spec, modalities)).eval()
    inputs = {
        m: torch.empty(
            (1, *spec.shapes[m]),
            dtype=torch.int64 if m in spec.vocabularies else torch.float32,
            device="meta",
        )
        for m in network.modalities
    }
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(inputs)
    except (RuntimeError, NotImplementedError, ValueError):
        return float("inf")
    return float(counter.get_total_flops())
