"""Encoders, the fusion head and the network that joins them."""

from bmsfed_app.models.encoders import ENCODERS, Encoder, InputError, build_encoder, check_encoder
from bmsfed_app.models.heads import (
    HEADS,
    CosineHead,
    FusionHead,
    Head,
    UniModalHeads,
    joint_unit,
)
from bmsfed_app.models.infiltration import InfiltrationHead
from bmsfed_app.models.initial import build_network
from bmsfed_app.models.mmtm import MMTMHead
from bmsfed_app.models.network import MultiModalNetwork, NetworkSpec
from bmsfed_app.models.output import Output
from bmsfed_app.models.weights import WeightsError, load_weights

__all__ = [
    "ENCODERS",
    "HEADS",
    "CosineHead",
    "Encoder",
    "FusionHead",
    "Head",
    "InfiltrationHead",
    "InputError",
    "MMTMHead",
    "MultiModalNetwork",
    "NetworkSpec",
    "Output",
    "UniModalHeads",
    "WeightsError",
    "build_encoder",
    "build_network",
    "check_encoder",
    "joint_unit",
    "load_weights",
]
