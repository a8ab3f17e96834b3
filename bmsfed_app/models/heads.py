"""Fusion heads by name: each turns features by modality into logits.

A head's arrays are named ``<what>.<modality>`` where they belong to a modality, so that they travel
and are averaged with it, and ``<what>`` where all share them.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.choice import settings_fault
from bmsfed_app.registry import Registry


class Head(nn.Module):
    """Base class: features (B, D) by modality in, logits (B, K) out.

    A modality that is not there contributes nothing, as a zero block would.
    """

    #: True where it depends on modalities that a client lacks as well; such a head is also given
    #: ``all_widths``, the width of the features of every modality of the network.
    needs_all_widths: ClassVar[bool] = False

    #: True where logits are the sum of the modalities' parts and a ``bias``, so that each part says
    #: by itself what the head makes of its modality alone.
    additive: ClassVar[bool] = False

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each modality contributes to the logits, (B, K) each."""
        raise NotImplementedError

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Join contributions into logits (B, K)."""
        raise NotImplementedError

    def forward(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the logits (B, K) of features (B, D) by modality; ``present`` as in masked."""
        there = {m: mask for m, mask in (present or {}).items() if m in features}
        return self.masked(features, there)[1] if there else self.fuse(self.parts(features))

    def masked(
        self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return parts and logits of samples that lack modalities: what each has alone, of each.

        Samples with the same modalities go through :meth:`parts` and :meth:`fuse` together, without
        what they lack. The latter's part is 0. A sample that has nothing gets zeros of everything.

        Parameters
        ----------
        features : mapping
            (B, D) by modality.
        present : mapping
            By modality that samples lack: Tensor (B,), bool, True where the sample has it.
        """
        size, device = (whole := next(iter(features.values()))).shape[0], whole.device
        everyone = torch.ones(size, dtype=torch.bool, device=device)
        held = torch.stack([present.get(m, everyone) for m in features], dim=1)
        patterns, which = held.unique(dim=0, return_inverse=True)
        logits = list[tuple[Tensor, Tensor]]()
        found = {m: list[tuple[Tensor, Tensor]]() for m in features}
        for number, pattern in enumerate(patterns.tolist()):
            rows = (which == number).nonzero().squeeze(1)
            own = {
                m: z[rows] for (m, z), there in zip(features.items(), pattern, strict=True) if there
            }
            parts = self.parts(own or {m: z[rows] for m, z in features.items()})
            logits.append((rows, self.fuse(parts)))
            for m in own:
                found[m].append((rows, parts[m]))
        like = logits[0][1]
        return {m: scattered(p, size, like) for m, p in found.items()}, scattered(
            logits, size, like
        )

    def reset(self, rng: torch.Generator) -> None:
        """Draw the initial weights: here matrices Xavier-normal in their order, the rest zeros."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, generator=rng)
            else:
                nn.init.zeros_(parameter)

    def release(self) -> None:
        """Let go of what earlier training has left besides arrays: here nothing."""
        return None


def scattered(pieces: Sequence[tuple[Tensor, Tensor]], size: int, like: Tensor) -> Tensor:
    """Put rows back into their places.

    Parameters
    ----------
    pieces : sequence of (Tensor (b,), Tensor (b, D))
        Places, and what stands there; elsewhere stand zeros.
    size : int
        Rows of the whole.
    like : Tensor (any, D)
        Of the whole's width, type and device.
    """
    whole = like.new_zeros((size, *like.shape[1:]))
    if not pieces:
        return whole
    places, values = zip(*pieces, strict=True)
    return whole.index_copy(0, torch.cat(places), torch.cat(values))


def _no_head(thing: object) -> str | None:
    if isinstance(thing, type) and issubclass(thing, Head):
        return None
    return "is no subclass of bmsfed_app.models.Head"


#: Heads by name; each is built from widths by modality, the number of classes, and its settings.
HEADS: Registry[type[Head]] = Registry("head", "bmsfed.heads", check=_no_head)


@HEADS.register("linear")
class FusionHead(Head):
    """``logits = W · concat_m(z_m) + b``, with W kept as one block of columns per modality.

    The bias is used whole, whatever is missing. Arrays: ``weight.<modality>`` (K, D), ``bias``
    (K,).
    """

    additive: ClassVar[bool] = True

    def __init__(self, widths: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.weight = nn.ParameterDict(
            {m: nn.Parameter(torch.empty(num_classes, d)) for m, d in widths.items()}
        )
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``W_m z_m`` (B, K) by modality."""
        return {m: F.linear(z, self.weight[m]) for m, z in features.items()}

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the contributions and the bias."""
        logits: Tensor = self.bias
        for part in parts.values():
            logits = logits + part
        return logits

    def reset(self, rng: torch.Generator) -> None:
        """Xavier-normal, as one matrix over all modalities; bias 0."""
        fill_blocks(self.weight, lambda whole: nn.init.xavier_normal_(whole, generator=rng))


@HEADS.register("cosine")
class CosineHead(Head):
    """``logits_c = s * cos(z, W_c)`` over the modalities that are there, z and W_c as one each.

    Both are scaled to norm 1 over the present blocks together; there is no bias. Arrays:
    ``weight.<modality>`` (K, D), ``scale`` (1,).

    Parameters
    ----------
    scale : float, default 1.0
        Initial s, above 0; it is learnt.

    Raises
    ------
    ValueError
        If ``scale`` is not above 0.
    """

    def __init__(self, widths: Mapping[str, int], num_classes: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale is {scale}, it must be above 0")
        self.weight = nn.ParameterDict(
            {m: nn.Parameter(torch.empty(num_classes, d)) for m, d in widths.items()}
        )
        self.scale = nn.Parameter(torch.full((1,), float(scale)))
        self.initial_scale = float(scale)

    def parts(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each modality's share (B, K) of the cosines, times s; they sum to the logits."""
        z, weight = joint_unit(features), joint_unit({m: self.weight[m] for m in features})
        return {m: self.scale * F.linear(z[m], weight[m]) for m in features}

    def fuse(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the contributions."""
        return torch.stack(list(parts.values())).sum(dim=0)

    def reset(self, rng: torch.Generator) -> None:
        """Draw orthonormal rows over all modalities together; s as it was set.

        Raises
        ------
        ValueError
            If there are more classes than features.
        """
        width = sum(b.shape[1] for b in self.weight.values())
        classes = next(iter(self.weight.values())).shape[0]
        if classes > width:
            raise ValueError(f"{classes} classes cannot be orthogonal in {width} features")
        fill_blocks(self.weight, lambda whole: nn.init.orthogonal_(whole, generator=rng))
        nn.init.constant_(self.scale, self.initial_scale)


def joint_unit(blocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale rows to Euclidean norm 1 over all blocks (R, D) together; rows of zeros stay zero."""
    widths = [b.shape[1] for b in blocks.values()]
    rows = F.normalize(torch.cat(list(blocks.values()), dim=1), dim=1)
    return dict(zip(blocks, rows.split(widths, dim=1), strict=True))


@HEADS.register("blending")
class UniModalHeads(FusionHead):
    """The plain fusion head, and besides a head of its own per modality, for training only.

    Logits and initial weights are exactly the plain head's. Arrays: those of :class:`FusionHead`,
    ``own_weight.<modality>`` (K, D), ``own_bias.<modality>`` (K,).
    """

    def __init__(self, widths: Mapping[str, int], num_classes: int) -> None:
        super().__init__(widths, num_classes)
        self.own_weight = zeros_by_modality({m: (num_classes, d) for m, d in widths.items()})
        self.own_bias = zeros_by_modality(dict.fromkeys(widths, (num_classes,)))

    def own(self, modality: str, z: Tensor) -> Tensor:
        """Return the logits (B, K) of one modality's own head, from its features (B, D)."""
        return F.linear(z, self.own_weight[modality], self.own_bias[modality])

    def reset(self, rng: torch.Generator) -> None:
        """Draw the fused part first, as the plain head does, then Xavier-normal own heads."""
        super().reset(rng)
        for weight in self.own_weight.values():
            nn.init.xavier_normal_(weight, generator=rng)


def zeros_by_modality(shapes: Mapping[str, tuple[int, ...]]) -> nn.ParameterDict:
    """Return parameters by modality, zeros of these shapes."""
    return nn.ParameterDict({m: nn.Parameter(torch.zeros(s)) for m, s in shapes.items()})


def fill_blocks(blocks: nn.ParameterDict, draw: Callable[[Tensor], Tensor]) -> None:
    """Fill blocks of columns as one matrix, which ``draw`` fills in place."""
    widths = [b.shape[1] for b in blocks.values()]
    whole = torch.empty(next(iter(blocks.values())).shape[0], sum(widths))
    draw(whole)
    with torch.no_grad():
        for block, values in zip(blocks.values(), whole.split(widths, dim=1), strict=True):
            block.copy_(values)


def build_head(
    name: str,
    widths: Mapping[str, int],
    num_classes: int,
    settings: Mapping[str, Any],
    all_widths: Mapping[str, int],
) -> Head:
    """Build a head by name; ``all_widths`` has the modalities that ``widths`` lacks as well.

    Raises
    ------
    ValueError
        If there is no such head, or it does not take a setting.
    """
    head = HEADS.find(name)
    known = {"all_widths": dict(all_widths)} if head.needs_all_widths else {}
    if fault := settings_fault(head, settings, leading=2, given=known):
        raise ValueError(f"{name}: {fault}")
    return head(widths, num_classes, **known, **settings)
