"""FedCMI's head: of every modality a projection of its own and one that stands for the others.

Shape legend: B batch, K classes, D feature width of a modality, P projected width, A modalities of
the network, a of them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models.heads import HEADS, Head


@HEADS.register("infiltration")
class InfiltrationHead(Head):
    """``logits = b + sum_m W_m s_m``, where the mean of the i_m fills the blocks of who is absent.

    ``s_m = S_m z_m`` is what modality m shows by itself, ``i_m = I_m z_m`` what it has learnt of
    the modality that leads; one classifier C_m reads both, for training only. All maps are affine.
    A client that lacks a modality has its columns all the same, since i_m goes through them: W is
    one array that everybody trains, and m alone gives ``b + W_m s_m + sum_m' W_m' i_m``.

    P is the largest of the widths, so that equal widths D are kept (the release) and others can be
    joined (ours). With each encoder ``2 P (D + 1) + K (P + 1)`` numbers travel that the plain head
    has not: (2 D + K)(D + 1) where all widths are D, 2.1 MB at D = 512.

    Arrays: ``weight`` W (K, A P), blocks in alphabetical order of the modalities; ``bias`` (K,);
    ``specific.<modality>`` S (P, D), ``specific_bias.<modality>`` (P,);
    ``infiltrated.<modality>`` I (P, D), ``infiltrated_bias.<modality>`` (P,);
    ``own_weight.<modality>`` C (K, P), ``own_bias.<modality>`` (K,).

    Source: Fan et al. 2024, https://arxiv.org/abs/2401.00894, as `models/basic_model.py` of
    https://github.com/fanyunfeng-bit/Balanced-Modality-Selection-in-MFL has it (linear branches).

    Parameters
    ----------
    widths : mapping
        D by modality that is there.
    num_classes : int
        K.
    all_widths : mapping
        D by modality of the network, there or not.
    """

    needs_all_widths: ClassVar[bool] = True

    def __init__(
        self, widths: Mapping[str, int], num_classes: int, *, all_widths: Mapping[str, int]
    ) -> None:
        super().__init__()
        # As the plain head's blocks lie when they are drawn, so that both start from the same W.
        self.order, self.width = tuple(sorted(all_widths)), max(all_widths.values())
        p, k = self.width, num_classes
        self.weight = nn.Parameter(torch.zeros(k, p * len(self.order)))
        self.bias = nn.Parameter(torch.zeros(k))
        self.specific = nn.ParameterDict({m: torch.zeros(p, d) for m, d in widths.items()})
        self.specific_bias = nn.ParameterDict({m: torch.zeros(p) for m in widths})
        self.infiltrated = nn.ParameterDict({m: torch.zeros(p, d) for m, d in widths.items()})
        self.infiltrated_bias = nn.ParameterDict({m: torch.zeros(p) for m in widths})
        self.own_weight = nn.ParameterDict({m: torch.zeros(k, p) for m in widths})
        self.own_bias = nn.ParameterDict({m: torch.zeros(k) for m in widths})

    def own(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return C_m s_m (a, B, K) of features (B, D) by modality, in their order."""
        shown = {m: self._specific(m, z) for m, z in features.items()}
        return torch.stack([self._classify(m, s) for m, s in shown.items()])

    def learnt(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return C_m i_m (a, B, K) of features (B, D) by modality, in their order."""
        imitated = {m: self._infiltrated(m, z) for m, z in features.items()}
        return torch.stack([self._classify(m, i) for m, i in imitated.items()])

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return by modality its own block's logits and its share of the gaps', (B, K) each."""
        blocks = dict(zip(self.order, self.weight.split(self.width, dim=1), strict=True))
        parts = {m: F.linear(self._specific(m, z), blocks[m]) for m, z in features.items()}
        if gaps := [blocks[m] for m in self.order if m not in features]:
            # The mean of the i_m in every gap: through the sum of the gaps' columns, shared out.
            filling = torch.stack(gaps).sum(dim=0) / len(features)
            for m, z in features.items():
                parts[m] = parts[m] + F.linear(self._infiltrated(m, z), filling)
        return parts

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the contributions and the bias."""
        return self.bias + torch.stack(list(parts.values())).sum(dim=0)

    def _specific(self, modality: str, z: Tensor) -> Tensor:
        return F.linear(z, self.specific[modality], self.specific_bias[modality])

    def _infiltrated(self, modality: str, z: Tensor) -> Tensor:
        return F.linear(z, self.infiltrated[modality], self.infiltrated_bias[modality])

    def _classify(self, modality: str, projected: Tensor) -> Tensor:
        return F.linear(projected, self.own_weight[modality], self.own_bias[modality])
