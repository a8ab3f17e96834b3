"""Features of a client's whole data, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.prototypes import ClassMeans, class_means, hits, score
from client_app.data import LocalData
from strategies import Update, imbalance_ratios

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


def local_prototypes(
    features: Mapping[str, Tensor], labels: Tensor, num_classes: int
) -> dict[str, ClassMeans]:
    """Class means of features (n, D) of all a client's samples, by modality (Eq. 5).

    All means that they cover whatever class one of its samples has.
    """
    means = {m: class_means(z.detach(), labels, num_classes) for m, z in features.items()}
    return {m: replace(p, covering=True) for m, p in means.items()}


def measure(
    update: Update,
    features: Mapping[str, Tensor],
    labels: Tensor,
    num_classes: int,
    ratio_kind: str = "score",
    min_class_count: int = 1,
) -> None:
    """Add prototypes and, over the whole local set, imbalance ratios (Eqs. 5, 16, 17).

    Parameters
    ----------
    update : Update
        The answer, changed in place.
    features : mapping
        Features (n, D) of the client's samples by modality.
    labels : Tensor (n,), int64
    num_classes : int
    ratio_kind : {"score", "accuracy"}
        Ratios of prototype scores, or of nearest-prototype hits.
    min_class_count : int
        Prototypes and counts of classes with fewer samples are withheld; scores and ratios, sums
        over all samples, are of all classes.
    """
    means = local_prototypes(features, labels, num_classes)
    update.prototypes = {m: p.withheld(min_class_count).to_message() for m, p in means.items()}
    rate = hits if ratio_kind == "accuracy" else score
    update.scores = {m: float(rate(z, labels, means[m])) for m, z in features.items()}
    if len(features) > 1:
        update.ratios = imbalance_ratios(update.scores)
