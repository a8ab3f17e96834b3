"""Encoders by name: each turns one modality's input into a feature vector.

A name is a key of ``ENCODERS``, ``hf:<name or folder>`` of a Hugging Face model, the name of an
entry point of another installed package in the group ``bmsfed.encoders``, or torchvision's name of
a classification model. What needs torchvision or transformers is imported where it is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

import torch
from torch import Tensor

from bmsfed_app.models.encoders.base import Encoder, InputError
from bmsfed_app.models.encoders.plain import MLP, Conv4, Identity
from bmsfed_app.models.encoders.sequences import GRUEncoder, TextHash, TinyTransformer

_T = TypeVar("_T")

#: Builds an encoder from one input's shape, its vocabulary (0: no token ids) and the width that
#: its features shall have (0: its own).
Builder = Callable[[tuple[int, ...], int, int], Encoder]

#: Group of the entry points by which other packages add encoders: a ``Builder`` each.
ENTRY_POINTS = "bmsfed.encoders"
HUGGING_FACE = "hf:"


def _later(
    module: str,
    builder: str,
    arguments: tuple[str, ...],
    shape: tuple[int, ...],
    vocabulary: int,
    width: int,
) -> Encoder:
    """Build with a builder of a module here that is imported only now."""
    build = getattr(import_module(f"{__name__}.{module}"), builder)
    encoder: Encoder = build(*arguments, shape, vocabulary, width)
    return encoder


#: The app's own encoders by their name in the configuration.
ENCODERS: dict[str, Builder] = {
    "conv4": Conv4,
    "resnet18": partial(_later, "vision", "resnet18", ()),
    "resnet18-audio": partial(_later, "vision", "resnet18_audio", ()),
    "gru": GRUEncoder,
    "tiny-transformer": TinyTransformer,
    "text-hash": TextHash,
    "mlp": MLP,
    "identity": Identity,
}


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


def encoder_size(name: str, shape: tuple[int, ...], *, vocabulary: int = 0, width: int = 0) -> int:
    """Return an encoder's number of parameters without building its weights."""
    return _measure(name, tuple(shape), vocabulary, width)[1]


def check_encoder(
    name: str, shape: tuple[int, ...], *, vocabulary: int = 0, width: int = 0
) -> None:
    """Check that an encoder turns two inputs into features (2, D), without data or weights.

    Raises
    ------
    ValueError
        If it cannot be built, or does not.
    """
    expected = (2, _measure(name, tuple(shape), vocabulary, width)[0])
    given = _describe(shape, vocabulary)

    def _of_two() -> Any:
        encoder = build_encoder(name, shape, vocabulary=vocabulary, width=width)
        return encoder(torch.zeros((2, *shape), dtype=torch.int64 if vocabulary else None))

    try:
        features = _without_values(_of_two)
    except Exception as error:  # whatever a library raises where an input does not fit
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"encoder {name} takes other inputs, not {given}: {reason}") from None
    found = tuple(features.shape) if isinstance(features, Tensor) else "several outputs"
    if found != expected:
        raise ValueError(
            f"encoder {name} returns {found} for two inputs {given}, not features {expected}"
        )


def _without_values(work: Callable[[], _T]) -> _T:
    """Do work with shapes only, or for real where something looks at values."""
    try:
        with torch.device("meta"):
            return work()
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
    with torch.random.fork_rng(devices=[]):
        return work()


def _describe(shape: tuple[int, ...], vocabulary: int) -> str:
    tokens = f"token ids {tuple(shape)} of a vocabulary of {vocabulary}"
    return tokens if vocabulary else str(tuple(shape))


@lru_cache
def _measure(name: str, shape: tuple[int, ...], vocabulary: int, width: int) -> tuple[int, int]:
    encoder = _without_values(
        lambda: build_encoder(name, shape, vocabulary=vocabulary, width=width)
    )
    return encoder.width, sum(p.numel() for p in encoder.parameters())


def _builder(name: str) -> Builder:
    if name in ENCODERS:
        return ENCODERS[name]
    if name.startswith(HUGGING_FACE):
        return partial(
            _later, "hugging_face", "HuggingFaceModel", (name.removeprefix(HUGGING_FACE),)
        )
    others = entry_points(group=ENTRY_POINTS)
    if name in others.names:
        try:
            builder: Builder = others[name].load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"encoder {name}: {others[name].value} cannot be loaded: {error}"
            ) from None
        return builder
    from bmsfed_app.models.encoders.vision import vision_models

    models = vision_models()
    if name in models:
        return partial(_later, "vision", "VisionModel", (name,))
    own = [*ENCODERS, *sorted(others.names)]
    near = difflib.get_close_matches(name, [*own, *models], 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(
        f"unknown encoder '{name}'{hint} (known: {', '.join(own)}, {HUGGING_FACE}<name or folder>, "
        "and torchvision's classification models)"
    )


__all__ = [
    "ENCODERS",
    "Builder",
    "Encoder",
    "InputError",
    "build_encoder",
    "check_encoder",
    "encoder_size",
    "encoder_width",
]
