"""Encoders by name: each turns one modality's input into a feature vector.

A name is one of ``ENCODERS`` (ours, or an entry point of another installed package in the group
``bmsfed.encoders``), ``hf:<name or folder>`` of a Hugging Face model, or torchvision's name of a
classification model. A module of this folder registers what it defines.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from bmsfed_app.models.encoders.base import ENCODERS, Builder, Encoder, ImageEncoder, InputError
from bmsfed_app.models.encoders.hugging_face import HuggingFaceModel
from bmsfed_app.models.encoders.vision import VisionModel, vision_models
from bmsfed_app.registry import nearest

_T = TypeVar("_T")

HUGGING_FACE = "hf:"

#: Encoders of up to so many parameters are tried with numbers: that takes a tenth of the second
#: in which torch loads what works with shapes alone.
_SOON_TRIED = 20_000_000


def build_encoder(
    name: str, shape: tuple[int, ...], *, vocabulary: int = 0, width: int = 0
) -> Encoder:
    """Build an encoder by name for inputs of one shape.

    Parameters
    ----------
    name : str
        See the module.
    shape : tuple of int
        One input: (D,), (T, F), (C, H, W), (F, C, H, W), or (L,) with a vocabulary.
    vocabulary : int, default 0
        Above 0: inputs are token ids, int64, below it; 0 is padding.
    width : int, default 0
        Width of the features; 0 takes the encoder's own.

    Raises
    ------
    ValueError
        If there is no such encoder, or it cannot take the shape or have the width.
    """
    shape = tuple(shape)
    builder = _builder(name)
    try:
        encoder = builder(shape, vocabulary, width)
    except InputError as error:
        given = _describe(shape, vocabulary)
        raise ValueError(f"encoder {name} takes {error}, not {given}") from None
    except ValueError as error:
        raise ValueError(f"encoder {name}: {error}") from None
    if not isinstance(encoder, Encoder):
        raise ValueError(f"encoder {name}: what was built is no bmsfed_app.models.Encoder")
    if width and encoder.width != width:
        raise ValueError(f"encoder {name} has features of width {encoder.width}, not {width}")
    return encoder


def encoder_width(name: str, shape: tuple[int, ...], *, vocabulary: int = 0, width: int = 0) -> int:
    """Return the width of an encoder's features without building its weights."""
    return _measure(name, tuple(shape), vocabulary, width)[0]


def check_encoder(
    name: str, shape: tuple[int, ...], *, vocabulary: int = 0, width: int = 0
) -> None:
    """Check that an encoder turns two inputs into features (2, D), without data.

    Raises
    ------
    ValueError
        If it cannot be built, or does not.
    """
    features_width, size = _measure(name, tuple(shape), vocabulary, width)
    expected, given = (2, features_width), _describe(shape, vocabulary)

    def _of_two() -> Any:
        encoder = build_encoder(name, shape, vocabulary=vocabulary, width=width)
        return encoder(torch.zeros((2, *shape), dtype=torch.int64 if vocabulary else None))

    try:
        features = _for_nothing(_of_two) if size <= _SOON_TRIED else without_values(_of_two)
    except Exception as error:  # whatever a library raises where an input does not fit
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"encoder {name} takes other inputs, not {given}: {reason}") from None
    found = tuple(features.shape) if isinstance(features, Tensor) else "several outputs"
    if found != expected:
        raise ValueError(
            f"encoder {name} returns {found} for two inputs {given}, not features {expected}"
        )


def without_values(work: Callable[[], _T]) -> _T:
    """Do work with shapes only, or for real where something looks at values."""
    try:
        with torch.device("meta"):
            return work()
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
    return _for_nothing(work)


def _for_nothing(work: Callable[[], _T]) -> _T:
    """Do work and leave no trace of what it draws."""
    with torch.random.fork_rng(devices=[]):
        return work()


def _describe(shape: tuple[int, ...], vocabulary: int) -> str:
    tokens = f"token ids {tuple(shape)} of a vocabulary of {vocabulary}"
    return tokens if vocabulary else str(tuple(shape))


@lru_cache
def _measure(name: str, shape: tuple[int, ...], vocabulary: int, width: int) -> tuple[int, int]:
    """An encoder's width of features, and how many parameters it has."""
    encoder = without_values(lambda: build_encoder(name, shape, vocabulary=vocabulary, width=width))
    return encoder.width, sum(p.numel() for p in encoder.parameters())


def _builder(name: str) -> Builder:
    if name.startswith(HUGGING_FACE):
        return partial(HuggingFaceModel, name.removeprefix(HUGGING_FACE))
    if name in ENCODERS:
        return ENCODERS.find(name)
    models = vision_models()
    if name in models:
        return partial(VisionModel, name)
    known = ENCODERS.names()
    raise ValueError(
        f"unknown encoder '{name}'{nearest(name, [*known, *models])} (known: {', '.join(known)}, "
        f"{HUGGING_FACE}<name or folder>, and torchvision's classification models)"
    )


__all__ = [
    "ENCODERS",
    "Builder",
    "Encoder",
    "ImageEncoder",
    "InputError",
    "build_encoder",
    "check_encoder",
    "encoder_width",
    "without_values",
]
