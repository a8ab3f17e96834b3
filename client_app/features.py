"""Features of a client's whole data, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

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
    """Features (n, D) of all the client's samples by modality, in eval mode, in order.

    Zeros of samples that lack the modality: see :meth:`LocalData.gaps`.
    """
    network.eval()
    chunks = [
        network(inputs).features for inputs, _ in data.batches(_FEATURE_BATCH, network.modalities)
    ]
    return {m: torch.cat([c[m] for c in chunks]) for m in network.modalities}


def local_prototypes(
    features: Mapping[str, Tensor],
    labels: Tensor,
    num_classes: int,
    gaps: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, ClassMeans]:
    """Class means of features (n, D) of all a client's samples, by modality (Eq. 5).

    All means that they cover whatever class one of its samples has, of those with the modality:
    where samples lack it, ``gaps`` says which have it, (n,) bool.
    """
    rows = there(features, gaps)
    means = {m: class_means(z[i].detach(), labels[i], num_classes) for m, (z, i) in rows.items()}
    return {m: replace(p, covering=True) for m, p in means.items()}


def there(
    features: Mapping[str, Tensor], gaps: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor | slice]]:
    """Return features (n, D) by modality, each with the index of samples that have it."""
    return {m: (z, gaps.get(m, slice(None))) for m, z in features.items()}


def measure(
    update: Update,
    features: Mapping[str, Tensor],
    labels: Tensor,
    num_classes: int,
    ratio_kind: str = "score",
    min_class_count: int = 1,
    gaps: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Add prototypes and, over the whole local set, imbalance ratios (Eqs. 5, 16, 17).

    **Samples that lack a modality** have no part in its prototypes and score; the score is scaled
    up to all samples, as if those spoke for the others, or no two could be compared.

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
    gaps : mapping
        By modality that samples lack: which have it, (n,) bool.
    """
    means = local_prototypes(features, labels, num_classes, gaps)
    update.prototypes = {m: p.withheld(min_class_count).to_message() for m, p in means.items()}
    rate = hits if ratio_kind == "accuracy" else score
    rows = there(features, gaps)
    update.scores = {m: float(rate(z[i], labels[i], means[m])) for m, (z, i) in rows.items()}
    for m, mask in gaps.items():
        update.scores[m] *= len(mask) / int(mask.sum())
    if len(features) > 1:
        update.ratios = imbalance_ratios(update.scores)
