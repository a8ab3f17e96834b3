"""MMTM's head: every modality's features are gated by what all modalities show.

Shape legend: B batch, K classes, D feature width of a modality, H squeezed width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models.heads import HEADS, Head, fill_blocks, zeros_by_modality


@HEADS.register("mmtm")
class MMTMHead(Head):
    """A classifier per modality on features that are gated by what all modalities show (MMTM).

    ``h = relu(sum_m U_m z_m + c)``, gate ``g_m = sigmoid(V_m h + c_m)``, branch logits
    ``W_m (g_m * z_m) + b_m``; the logits are the mean over the branches that are there. While it
    trains, the head keeps the running mean of each gate (the mean over a batch, averaged over all
    steps so far). A modality named ``frozen`` gets that mean as a constant gate in training mode,
    so that neither its V_m and c_m nor the mean itself change.

    Arrays: ``squeeze.<modality>`` U (H, D), ``squeeze_bias`` c (H,), ``excite.<modality>`` V
    (D, H), ``excite_bias.<modality>`` (D,), ``weight.<modality>`` (K, D),
    ``class_bias.<modality>`` (K,), ``gate_mean.<modality>`` (D,), ``gate_steps.<modality>`` (1,)
    int64. U and V are most of it: together about 16 (sum of D)^2 / ratio bytes, 4 MiB for two
    encoders of width 512. Averaged over clients, means are weighted by samples, steps are the most.

    Source: Vaezi Joze et al., CVPR 2020, https://arxiv.org/abs/1911.08670. Gates commute with
    average pooling, so gating pooled features is the module behind the last convolution.

    Parameters
    ----------
    widths : mapping
        D by modality that is there.
    num_classes : int
        K.
    all_widths : mapping
        D by modality of the network, there or not.
    ratio : int, default 4
        H = max(1, 2 (sum of all D) // ratio).

    Attributes
    ----------
    frozen : str or None
        The modality whose gate is frozen; not an array: it does not travel.

    Raises
    ------
    ValueError
        If ``ratio`` is below 1.
    """

    needs_all_widths: ClassVar[bool] = True

    def __init__(
        self,
        widths: Mapping[str, int],
        num_classes: int,
        *,
        all_widths: Mapping[str, int],
        ratio: int = 4,
    ) -> None:
        super().__init__()
        if ratio < 1:
            raise ValueError(f"ratio is {ratio}, it must be at least 1")
        hidden = max(1, 2 * sum(all_widths.values()) // ratio)

        self.squeeze = zeros_by_modality({m: (hidden, d) for m, d in widths.items()})
        self.squeeze_bias = nn.Parameter(torch.zeros(hidden))
        self.excite = zeros_by_modality({m: (d, hidden) for m, d in widths.items()})
        self.excite_bias = zeros_by_modality({m: (d,) for m, d in widths.items()})
        self.weight = zeros_by_modality({m: (num_classes, d) for m, d in widths.items()})
        self.class_bias = zeros_by_modality(dict.fromkeys(widths, (num_classes,)))
        self.gate_mean = _Buffers({m: torch.zeros(d) for m, d in widths.items()})
        self.gate_steps = _Buffers({m: torch.zeros(1, dtype=torch.int64) for m in widths})
        self.frozen: str | None = None

    def gates(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the gates by modality: (B, D), or (D,) of a frozen one.

        Means are kept of the gates of samples that have the modality; ``present`` as in masked.
        """
        squeezed: Tensor = self.squeeze_bias
        for m, z in features.items():
            squeezed = squeezed + F.linear(z, self.squeeze[m])
        h = squeezed.relu()
        gates = {}
        for m in features:
            if self.training and m == self.frozen:
                gates[m] = self.gate_mean[m]
                continue
            gates[m] = torch.sigmoid(F.linear(h, self.excite[m], self.excite_bias[m]))
            if self.training:
                mask = (present or {}).get(m)
                self._track(m, gates[m] if mask is None else gates[m][mask])
        return gates

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the branches' logits (B, K) by modality."""
        gates = self.gates(features)
        return {
            m: F.linear(z * gates[m], self.weight[m], self.class_bias[m])
            for m, z in features.items()
        }

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the branches' logits."""
        return torch.stack(list(parts.values())).mean(dim=0)

    def masked(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """See :class:`Head`; in one pass, since a gate's running mean is over whole batches."""
        gates = self.gates(features, present)  # zeros squeeze to nothing
        parts = {
            m: F.linear(z * gates[m], self.weight[m], self.class_bias[m])
            for m, z in features.items()
        }
        for m, mask in present.items():
            parts[m] = parts[m].where(mask[:, None], 0.0)
        ones = torch.ones_like(next(iter(present.values())))
        branches = torch.stack([present.get(m, ones) for m in features]).sum(dim=0)
        total = torch.stack(list(parts.values())).sum(dim=0)
        return parts, total / branches.clamp(min=1)[:, None]

    def reset(self, rng: torch.Generator) -> None:
        """Xavier-normal: U as one matrix over all modalities, V and W one by one; biases 0."""
        fill_blocks(self.squeeze, lambda whole: nn.init.xavier_normal_(whole, generator=rng))
        for block in (*self.excite.values(), *self.weight.values()):
            nn.init.xavier_normal_(block, generator=rng)

    def release(self) -> None:
        """Let every gate be computed."""
        self.frozen = None

    @torch.no_grad()
    def _track(self, modality: str, gate: Tensor) -> None:
        if not len(gate):
            return
        mean, steps = self.gate_mean[modality], self.gate_steps[modality]
        steps += 1
        mean += (gate.mean(dim=0) - mean) / steps


class _Buffers(nn.Module):
    """Tensors by modality that are saved but not trained."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for modality, tensor in tensors.items():
            self.register_buffer(modality, tensor)

    def __getitem__(self, modality: str) -> Tensor:
        return self.get_buffer(modality)
