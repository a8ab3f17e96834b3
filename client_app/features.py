"""Features of a client's whole data, and what follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.prototypes import ClassMeans, class_means
from client_app.data import LocalData

#: Samples per forward pass without gradients.
_FEATURE_BATCH = 256


@torch.inference_mode()
def extract_features(network: MultiModalNetwork, data: LocalData) -> dict[str, Tensor]:
    """Features (n, D) of all the client's samples by modality, in eval mode, in order."""
    network.eval()
    chunks = [
        network(inputs).features for inputs, _ in data.batches(_FEATURE_BATCH, network.modalities)
    ]
    return {m: torch.cat([c[m] for c in chunks]) for m in network.modalities}


def local_prototypes(features: dict[str, Tensor], data: LocalData) -> dict[str, ClassMeans]:
    """Class means of the client's features (n, D) by modality (Eq. 5)."""
    return {m: class_means(z, data.labels, data.num_classes) for m, z in features.items()}
