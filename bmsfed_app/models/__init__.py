"""Encoders, the fusion head and the network that joins them."""

from bmsfed_app.models.encoders import ENCODERS, Encoder, build_encoder
from bmsfed_app.models.heads import (
    HEADS,
    CosineHead,
    FusionHead,
    Head,
    MMTMHead,
    UniModalHeads,
    joint_unit,
)
from bmsfed_app.models.network import (
    MultiModalNetwork,
    NetworkSpec,
    Output,
    build_network,
)

__all__ = [
    "ENCODERS",
    "HEADS",
    "CosineHead",
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
    "joint_unit",
]
