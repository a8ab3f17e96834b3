"""Cross-entropy against class directions that only the server moves (FedNH)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
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
    than the client's ``min_class_count`` are sent as absent ones.
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
        means = local_prototypes(joint_unit(features), data.labels, data.num_classes)
        means = {m: p.withheld(data.min_class_count) for m, p in means.items()}
        directions = joint_unit({m: p.means for m, p in means.items()})
        counts = next(iter(means.values())).counts
        sent = {f"directions.{m}": d.cpu().numpy() for m, d in directions.items()}
        return sent | {"counts": counts.cpu().numpy().astype(np.float64)}
