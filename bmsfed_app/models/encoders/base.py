"""What an encoder is, and how it says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from bmsfed_app.registry import Registry, not_callable


class InputError(ValueError):
    """An encoder cannot take its input; the message is what it takes instead."""


class Encoder(nn.Module):
    """Base class: an encoder turns inputs (B, ...) into features (B, D).

    One input is a vector (D,), a sequence (T, F), an image (C, H, W), frames (F, C, H, W), all
    float32, or token ids (L,), int64, of which 0 is padding.
    """

    #: Width D of the features.
    width: int

    #: True where the modules' own initial weights stay; otherwise linear layers and convolutions
    #: get those of :func:`bmsfed_app.models.build_network`.
    own_initialisation: bool = False

    #: What names in files of weights lack that the encoder's own state dict begins with.
    prefix: ClassVar[str] = ""

    #: Beginnings of names in files of weights that the encoder has no use for, e.g. a classifier.
    unused: tuple[str, ...] = ()

    def published_weights(self) -> dict[str, Tensor]:
        """Fetch the state dict that its makers publish, named as in their files.

        Raises
        ------
        ValueError
            If there is none, or it cannot be had.
        """
        raise ValueError("nobody publishes weights for it: give a file")


#: Builds an encoder from one input's shape, its vocabulary (0: no token ids) and the width that
#: its features shall have (0: its own).
Builder = Callable[[tuple[int, ...], int, int], Encoder]

#: The encoders by their name in the configuration.
ENCODERS: Registry[Builder] = Registry(
    "encoder", "bmsfed.encoders", "bmsfed_app.models.encoders", check=not_callable
)


class ImageEncoder(Encoder):
    """Base class of encoders of images (B, C, H, W) that also take frames (B, F, C, H, W).

    Frames are encoded one by one and their features averaged (the paper's protocol, its Sect. 4.2).
    """

    #: How images lie in memory where they are encoded; it decides on speed alone.
    layout: torch.memory_format = torch.contiguous_format

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as features (B, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) or frames (B, F, C, H, W) as features (B, D)."""
        if x.dim() < 5:
            return self.encode(x)
        features: Tensor = self.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return features.mean(dim=1)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (C, H, W) of an image or of one of its frames; None for other inputs."""
    return shape[-3:] if len(shape) in (3, 4) else None  # type: ignore[return-value]


def masked_mean(states: Tensor, there: Tensor) -> Tensor:
    """Mean (B, D) of the states (B, L, D) that are ``there`` (B, L), boolean; 0 where none is."""
    kept = states * there.unsqueeze(2)
    return kept.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)


def padded_attention(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return which tokens (B, L) count, and which to attend to: all where none counts."""
    there = ids != 0
    return there, there | ~there.any(dim=1, keepdim=True)


__all__ = [
    "ENCODERS",
    "Builder",
    "Encoder",
    "ImageEncoder",
    "InputError",
    "image_shape",
    "masked_mean",
    "padded_attention",
]
