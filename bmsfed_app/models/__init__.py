"""Encoders, the fusion head and the network that joins them."""

from bmsfed_app.models.encoders import ENCODERS, Encoder, build_encoder
from bmsfed_app.models.heads import HEADS, FusionHead, Head, MMTMHead, UniModalHeads
from bmsfed_app.models.network import (
    MultiModalNetwork,
    NetworkSpec,
    Output,
    build_network,
)

__all__ = [
    "ENCODERS",
    "HEADS",
    "Encoder",
    "FusionHead",
    "Head",
    "MMTMHead",
    "MultiModalNetwork",
    "NetworkSpec",
    "Output",
    "UniModalHeads",
    "build_encoder",
    "build_network",
]
