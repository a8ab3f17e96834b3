"""The multi-modal network: one encoder per modality and a fusion head, by name.

Shape legend: B batch, K classes, D feature width of a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bmsfed_app.datasets.base import Inputs
from bmsfed_app.devices import Precision, set_up_compiler
from bmsfed_app.models.encoders import (
    Encoder,
    build_encoder,
    check_encoder,
    encoder_width,
    without_values,
)
from bmsfed_app.models.freezing import freeze, frozen_arrays, still_modules
from bmsfed_app.models.heads import build_head, scattered
from bmsfed_app.models.output import Output
from bmsfed_app.models.shared_memory import shared_tensor
from strategies import Arrays
from strategies.protocol import owner

_T = TypeVar("_T")


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made of; plain values, so that it can travel as JSON.

    Attributes
    ----------
    encoders : dict
        Encoder name by modality, in the order of the data set.
    shapes : dict
        Shape of one input by modality.
    num_classes : int
        Classes K.
    feature_norm : float
        If above 0, every feature is scaled to this Euclidean norm before head and prototypes.
    head : str
        Name of the fusion head.
    head_settings : dict
        Of the head.
    vocabularies : dict
        By modality of token ids: all of them are below it, and 0 is padding.
    widths : dict
        Width of the features by modality; where there is none, the encoder's own.
    freeze : dict
        Patterns of an encoder's parameters by modality: what fits one is not trained.
    """

    encoders: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    feature_norm: float = 0.0
    head: str = "linear"
    head_settings: dict[str, Any] = field(default_factory=dict)
    vocabularies: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    freeze: dict[str, list[str]] = field(default_factory=dict)

    def __hash__(self) -> int:  # dictionaries have none; workers cache networks by their spec
        parts = (tuple(self.encoders.items()), self.num_classes, self.feature_norm, self.head)
        return hash(parts)

    def build(self, modality: str) -> Encoder:
        """Build a modality's encoder; see :func:`~bmsfed_app.models.build_encoder`."""
        return self._ask(build_encoder, modality)

    def check(self, modality: str) -> None:
        """Check a modality's encoder; see :func:`~bmsfed_app.models.check_encoder`."""
        self._ask(check_encoder, modality)

    def width(self, modality: str) -> int:
        """Return the width D of a modality's features."""
        return self._ask(encoder_width, modality)

    def signed_size(self, modality: str) -> int:
        """Return the length of a modality's exact signature."""
        return sum(p.numel() for p in _skeleton(self).signed(modality))

    def frozen(self) -> frozenset[str]:
        """Return the names of the arrays that nobody trains.

        Raises
        ------
        ValueError
            If a pattern of ``freeze`` fits no parameter.
        """
        return _skeleton(self).frozen

    def normalising(self) -> tuple[str, ...]:
        """Return the modalities, and "head", whose features are normalised over training batches.

        Those that are frozen are not among them.
        """
        return _skeleton(self).normalising

    def _ask(self, function: Callable[..., _T], modality: str) -> _T:
        return function(
            self.encoders[modality],
            tuple(self.shapes[modality]),
            vocabulary=self.vocabularies.get(modality, 0),
            width=self.widths.get(modality, 0),
        )


class MultiModalNetwork(nn.Module):
    """Encoders by modality and a fusion head; state-dict names begin with their part.

    Parameters
    ----------
    spec : NetworkSpec
        The whole network.
    modalities : sequence of str, optional
        Build only these encoders and head columns; all by default. The order is the spec's.
    columns : sequence of str, optional
        Modalities whose head columns to build besides, without their encoders.

    Attributes
    ----------
    fixed : frozenset of str
        Parameters that an encoder's or head's own constructor froze; they keep its values.
    frozen : frozenset of str
        All of the state dict that is not trained: what is fixed, what fits the spec's patterns,
        and the running statistics and other buffers of modules that are frozen as a whole. These
        modules stay in eval mode, so that they compute the same in training.
    normalising : tuple of str
        The modalities, and "head", whose features are normalised over a batch while training.

    Raises
    ------
    ValueError
        If an encoder is unknown or cannot take its input, a modality is not in the spec, or a
        pattern fits no parameter.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        modalities: Sequence[str] | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__()
        wanted = set(spec.encoders if modalities is None else modalities)
        if unknown := sorted(wanted - set(spec.encoders)):
            raise ValueError(
                f"unknown modality '{unknown[0]}' (the network has {', '.join(spec.encoders)})"
            )
        self.spec = spec
        self.in_bf16 = False
        self.modalities = tuple(m for m in spec.encoders if m in wanted)
        encoders = {m: spec.build(m) for m in self.modalities}
        self.encoders = nn.ModuleDict(encoders)
        every = {m: encoders[m].width if m in encoders else spec.width(m) for m in spec.encoders}
        widths = {m: d for m, d in every.items() if m in {*encoders, *columns}}
        self.head = build_head(spec.head, widths, spec.num_classes, spec.head_settings, every)
        self.fixed = frozenset(n for n, p in self.named_parameters() if not p.requires_grad)
        for m, encoder in encoders.items():
            try:
                freeze(encoder, spec.freeze.get(m, ()))
            except ValueError as error:
                raise ValueError(f"freeze.{m}: {error}") from None
        # Part by part: what stands still must not depend on which other parts are there.
        parts = {f"encoders.{m}": e for m, e in encoders.items()} | {"head": self.head}
        self.frozen = frozenset(
            f"{p}.{n}" for p, part in parts.items() for n in frozen_arrays(part)
        )
        self._still = frozenset(m for part in parts.values() for m in still_modules(part))
        self.normalising = tuple(
            p.removeprefix("encoders.") for p in parts if self._norms(parts[p])
        )

    @property
    def least_batch(self) -> int:
        """Samples that a mini-batch of training needs."""
        return 2 if self.normalising else 1

    def trainable(self, modality: str) -> list[nn.Parameter]:
        """Return the parameters of a modality's encoder that are not frozen, in its order."""
        named = self.encoders[modality].named_parameters(f"encoders.{modality}")
        return [p for name, p in named if name not in self.frozen]

    def signed(self, modality: str) -> list[nn.Parameter]:
        """Return the parameters whose gradient tells clients apart by a modality.

        Its encoder's; where that is frozen as a whole, the modality's own part of the head.
        """
        head = [(n, p) for n, p in self.head.named_parameters("head") if n not in self.frozen]
        return self.trainable(modality) or [p for n, p in head if owner(n) == modality]

    def train(self, mode: bool = True) -> Self:
        """Switch to training, but for modules that are frozen as a whole.

        Recurrent layers without dropout are always in training mode: they compute the same, and
        cuDNN's go backwards in training mode only, which signatures need in eval mode.
        """
        super().train(mode)
        for module in self._still:
            module.training = False
        for module in self.modules():
            if isinstance(module, nn.RNNBase) and not module.dropout:
                module.training = True
        return self

    def compute(self, precision: Precision, *, compiled: bool) -> Self:
        """Choose how encoders compute from now on; names of arrays stay. Return itself.

        Head, losses and prototypes are always computed in float32, and by torch's own code.
        """
        self.in_bf16 = precision == "bf16"
        if compiled:
            set_up_compiler()
            for encoder in self.encoders.values():
                encoder.compile()
        return self

    def encode(self, modality: str, x: Tensor) -> Tensor:
        """Return the features (B, D), float32, of one modality's inputs."""
        z: Tensor
        if self.in_bf16:
            with torch.autocast(x.device.type, torch.bfloat16):
                z = self.encoders[modality](x).float()
        else:
            z = self.encoders[modality](x)
        if self.spec.feature_norm > 0:
            z = F.normalize(z, dim=1) * self.spec.feature_norm
        return z

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Run the encoders of the modalities in ``inputs``, and the head on their features.

        Where ``inputs`` say which samples lack a modality, its encoder runs on the others alone:
        batch norm sees nothing else. If one row is left to an encoder that normalises over
        batches, which takes away all that it says, its modality is taken for absent in the whole
        batch.

        Raises
        ------
        ValueError
            If samples lack modalities and the head normalises over batches.
        """
        present = self._present(inputs)
        if not present:
            features = {m: self.encode(m, inputs[m]) for m in self.modalities if m in inputs}
            parts = self.head.parts(features)
            return Output(features, self.head.fuse(parts), parts)
        features = {
            m: self._encode_rows(m, inputs[m], present.get(m))
            for m in self.modalities
            if m in inputs
        }
        parts, logits = self.head.masked(features, present)
        return Output(features, logits, parts, present)

    def _present(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which rows (B,) an encoder runs on, where that is not all of them."""
        masks = inputs.present if isinstance(inputs, Inputs) else {}
        present = {m: masks[m] for m in self.modalities if m in masks}
        if present and self.training and "head" in self.normalising:
            raise ValueError(
                f"the head '{self.spec.head}' normalises over batches, but samples lack "
                f"'{next(iter(present))}': choose another head, or complete samples"
            )
        for m in present.keys() & set(self.normalising) if self.training else ():
            if present[m].sum() == 1:
                present[m] = torch.zeros_like(present[m])
        return present

    def _encode_rows(self, modality: str, x: Tensor, present: Tensor | None) -> Tensor:
        """Return features (B, D): of rows that are not present zeros."""
        if present is None:
            return self.encode(modality, x)
        rows = present.nonzero().squeeze(1)
        if not len(rows):
            return torch.zeros(len(x), self.spec.width(modality), device=x.device)
        z = self.encode(modality, x[rows])
        return scattered([(rows, z)], len(x), z)

    def restart(self, arrays: Arrays) -> Self:
        """Hold these arrays and nothing of earlier use; return itself.

        Processes keep networks from one task to the next: this leaves one in eval mode, with just
        those parameters trainable that were so when it was built, no gradients, and no gate frozen.

        Raises
        ------
        ValueError
            Naming the first array that is missing, unknown or of another shape.
        """
        own = self.state_dict()
        for name in sorted(set(own) | set(arrays)):
            there = arrays.get(name)
            if name not in own or there is None or tuple(own[name].shape) != there.shape:
                shape = None if there is None else list(there.shape)
                want = list(own[name].shape) if name in own else None
                raise ValueError(
                    f"received array '{name}' has shape {shape}, this app expects {want}"
                )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(shared_tensor(arrays[name]))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in self.frozen)
        self.zero_grad(set_to_none=True)
        self.head.release()
        return self.eval()

    def _norms(self, part: nn.Module) -> bool:
        """Whether a part normalises over batches in training."""
        return any(isinstance(m, _BatchNorm) and m not in self._still for m in part.modules())


@lru_cache(maxsize=8)
def _skeleton(spec: NetworkSpec) -> MultiModalNetwork:
    """Build the whole network without values: its names, shapes and what is frozen."""
    return without_values(lambda: MultiModalNetwork(spec))
