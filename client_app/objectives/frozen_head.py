"""Cross-entropy against class directions that only the server moves (FedNH)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bmsfed_app.models import joint_unit
from client_app.data import LocalData
from client_app.features import local_prototypes
from client_app.objectives.base import OBJECTIVES, Needs, Objective
from strategies import Arrays


@OBJECTIVES.register("frozen_head")
class FrozenHead(Objective):
    """``F_k = CE`` with the head's weights frozen: neither trained, decayed, nor sent back.

    Afterwards the client sends ``directions.<modality>`` (K, D): per class the mean over its
    samples of the features, scaled to norm 1 over its modalities together, scaled so again (rows
    of absent classes are 0); and ``counts`` (K,), its samples per class. Classes with fewer samples
    than the client's ``min_class_count`` are sent as absent ones. Of a modality that samples lack,
    the mean is over those that have it, and ``counts.<modality>`` (K,) are theirs.
    """

    frozen: ClassVar[tuple[str, ...]] = ("head.weight.",)
    packs: ClassVar[bool] = True
    kept_back: ClassVar[tuple[str, ...]] = ("head.weight.",)

    @property
    def needs(self) -> Needs:
        """Directions are those of the trained model."""
        return Needs.TRAINED_FEATURES

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return class directions at the trained model, and class counts."""
        labels, classes, least = data.labels, data.num_classes, data.min_class_count
        gaps = data.gaps(features)
        means = local_prototypes(joint_unit(features), labels, classes, gaps)
        means = {m: p.withheld(least) for m, p in means.items()}
        directions = joint_unit({m: p.means for m, p in means.items()})
        counts = torch.bincount(labels, minlength=classes)
        found = {"counts": counts.masked_fill(counts < least, 0)}
        found |= {f"counts.{m}": means[m].counts for m in gaps}
        sent = {f"directions.{m}": d.cpu().numpy() for m, d in directions.items()}
        return sent | {n: c.cpu().numpy().astype(np.float64) for n, c in found.items()}
