"""Cross-entropy of the fused logits."""

from __future__ import annotations

from typing import ClassVar

from client_app.objectives.base import OBJECTIVES, Objective


@OBJECTIVES.register("cross_entropy")
class CrossEntropy(Objective):
    """``F_k = CE`` over the modalities assigned (Eq. 1): what every objective does by itself."""

    packs: ClassVar[bool] = True
