"""A model on the samples that a client holds out for tests: counted, never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork
from client_app.data import LocalData
from client_app.features import extract_features
from strategies.federation.client_tests import ABSENT
from strategies.messages import RIGHT, TESTED


@torch.inference_mode()
def count_right(
    network: MultiModalNetwork, data: LocalData, told: Mapping[str, Any]
) -> dict[str, float]:
    """Count what a model gets right, in eval mode, with the modalities that each sample has.

    Parameters
    ----------
    network : MultiModalNetwork
        Of all modalities that the client holds.
    data : LocalData
        The samples to test, t >= 0.
    told : mapping
        The orders' ``method_state``, which may say what modalities that are missing add to the
        logits, (K,) by modality: see :meth:`strategies.Decisions.absent_logits`.

    Returns
    -------
    dict
        ``tested`` and ``right``, samples.
    """
    data = data.having(network.modalities)
    if not len(data):
        return {TESTED: 0.0, RIGHT: 0.0}
    gaps, labels = data.gaps(network.modalities), data.labels
    logits: Tensor = network.head(extract_features(network, data), gaps)
    for modality, constant in told.get(ABSENT, {}).items():
        added = torch.tensor(constant, dtype=logits.dtype, device=logits.device)
        if modality not in network.modalities:
            logits = logits + added
        elif modality in gaps:
            logits = logits + added * ~gaps[modality][:, None]
    right = int((logits.argmax(dim=1) == labels).sum())
    return {TESTED: float(len(data)), RIGHT: float(right)}
