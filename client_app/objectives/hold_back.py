"""Strong modalities held back, so that the fused answer trusts the weak one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.models import Output
from client_app.data import LocalData
from client_app.holdout import drawn_holdout
from client_app.objectives.base import OBJECTIVES, Needs, mean_of_held
from client_app.objectives.modal_enhancement import NOTHING, ModalEnhancement, Target
from strategies import Arrays
from strategies.bmsfed_plus import COUNTS


@OBJECTIVES.register("hold_back")
@dataclass(kw_only=True)
class HoldBack(ModalEnhancement):
    """``F_k = CE + gamma [CE_weak + sum over strong m of CE^e_m] + coef ME(weak)``.

    CE_m is of modality m alone, through its own columns of the fused head; gamma is the
    experiment's ``uni_weight``. CE^e is label-smoothed: against (1 - e) onehot(y) + e / K of K
    classes. The weak modality is the globally weak one, all others are strong.

    A strong modality learns first; by the time the weak one has learnt as well, the strong one's
    logits are as sure of themselves, and where they disagree the fused answer is a tie. Smoothing
    bounds the strong one's lead by log((1 - e) K / e + 1), the weak one's it does not. A client
    that trains a strong modality alone smooths its loss too.

    While the server does not trust the weak modality (``method_state`` {"trusted": False}), this is
    ``cross_entropy`` with the same ``uni_weight``: nothing is smoothed or enhanced.

    In the first rounds a share of the samples, the same in each, is held out of training. Measured
    are then the counts (2,) of :class:`strategies.BMSFedPlus` by modality, of held-out samples that
    have it. Later all samples train, and the server knows what it will know.

    Parameters
    ----------
    smoothing : float
        e, in [0, 1).
    holdout : float
        Share of the samples to hold out, in [0, 0.5].
    holdout_until : float
        Share of the rounds in which they are, in [0, 1].
    **others
        Those of :class:`ModalEnhancement`.

    Source: ours; label smoothing: Szegedy et al., CVPR 2016, https://arxiv.org/abs/1512.00567.
    """

    packs: ClassVar[bool] = True

    smoothing: float
    holdout: float
    holdout_until: float
    counts: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def counting(self) -> bool:
        """Whether samples are held out in this round, the same for all clients."""
        return self.holdout > 0 and self.context.settings.progress < self.holdout_until

    @property
    def needs(self) -> Needs:
        """Counts at the received model come from its features, which own prototypes need too."""
        return super().needs | Needs.FEATURES if self.counting else super().needs

    @property
    def trusted(self) -> bool:
        """Whether the weak modality is trusted, the same for all clients of a round."""
        return bool(self.context.orders.method_state.get("trusted", True))

    def training_data(self, data: LocalData) -> LocalData:
        """Return all samples but those held out, having counted what is right of these."""
        if not self.counting:
            return data
        held_out = drawn_holdout(data, self.holdout, self.context)
        self.counts = self._counted(data, held_out)
        return replace(data, index=data.index[~held_out])

    @torch.no_grad()
    def _counted(self, data: LocalData, held_out: Tensor) -> dict[str, Tensor]:
        labels, found = data.labels, {}
        for m, z in self.context.features.items():
            right = self.network.head({m: z}).argmax(dim=1) == labels
            has = data.present(m)
            asked = held_out if has is None else held_out & has
            found[m] = torch.stack([asked.sum(), (right & asked).sum()])
        return found

    def fused_loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the loss of all modalities together; of a strong one alone it is smoothed."""
        alone = self._smoothing(output.parts)[0] if len(output.parts) == 1 else 0.0
        return F.cross_entropy(output.logits, labels, label_smoothing=alone)

    def uni_losses(self, output: Output, labels: Tensor) -> Tensor:
        """Cross-entropy (a,) of each modality through its own columns, strong ones' smoothed."""
        logits = self.uni_logits(output)
        shares = self._smoothing(output.parts)
        each = [
            F.cross_entropy(x, labels, reduction="none", label_smoothing=e)
            for x, e in zip(logits, shares, strict=True)
        ]
        return mean_of_held(torch.stack(each), output)

    def _smoothing(self, modalities: Iterable[str]) -> list[float]:
        """Return e of each modality: 0 of the weak one, and of all where none is to be favoured."""
        weak = self.context.orders.weak
        if weak is None or not self.trusted:
            return [0.0 for _ in modalities]
        return [0.0 if m == weak else self.smoothing for m in modalities]

    def target(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        present: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Target:
        """Return what to enhance in a batch; nothing while the weak modality is not trusted."""
        return super().target(features, labels, present) if self.trusted else NOTHING

    def _weak_of(self, features: Mapping[str, Tensor], ratios: Tensor) -> Target:
        return super()._weak_of(features, ratios) if self.trusted else NOTHING

    def pack(self) -> dict[str, Tensor]:
        """Return what modal enhancement looks at."""
        own = super().pack()
        if "coefficient" in own and not self.trusted:
            own["coefficient"] = torch.zeros_like(own["coefficient"])
        return own

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return the counts."""
        counted = {COUNTS + m: c.cpu().numpy().astype(np.float32) for m, c in self.counts.items()}
        return super().after_training(features, data) | counted
