"""Encoders, the fusion head and the network that joins them."""

from bmsfed_app.models.encoders import ENCODERS, Encoder, build_encoder
from bmsfed_app.models.network import (
    FusionHead,
    MultiModalNetwork,
    NetworkSpec,
    Output,
    build_network,
)

__all__ = [
    "ENCODERS",
    "Encoder",
    "FusionHead",
    "MultiModalNetwork",
    "NetworkSpec",
    "Output",
    "build_encoder",
    "build_network",
]
