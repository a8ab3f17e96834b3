"""What an answer may hold besides arrays: names and shapes, known before any answer came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .messages import Arrays, Orders

#: A shape; None where only the answers themselves can say.
Shape = tuple[int, ...] | None


@dataclass(frozen=True)
class Expected:
    """Names and shapes of what an answer may hold; it need not hold all of it.

    Attributes
    ----------
    modalities : tuple of str
        Those asked for: nothing else may have a score or a ratio.
    prototypes, signatures : mapping
        Shape by modality, and by name. A shape that is None is the one that the state holds, or
        else most of the phase's answers.
    measurements : mapping or None
        Shape by name; None where the method does not say what it takes.
    """

    modalities: tuple[str, ...]
    prototypes: Mapping[str, Shape] = field(default_factory=dict)
    signatures: Mapping[str, Shape] = field(default_factory=dict)
    measurements: Mapping[str, Shape] | None = None


def expected_of(
    orders: Orders, model: Arrays, measurements: Mapping[str, Shape] | None
) -> Expected:
    """Return what an answer to orders may hold, by the model.

    The columns of a linear head, ``head.weight.<modality>`` (classes, width), say how prototypes
    look; other heads say nothing. Sketches are as long as was ordered; exact vectors depend on
    which of the arrays are trained. Whatever the method, a test is answered by metrics alone.
    """
    if orders.kind == "test":
        return Expected(orders.modalities, measurements={})
    prototypes: dict[str, Shape] = {}
    for modality in orders.modalities:
        columns = model.get(f"head.weight.{modality}")
        prototypes[modality] = columns.shape if columns is not None and columns.ndim == 2 else None
    signatures: dict[str, Shape] = {}
    if (wanted := orders.signature) is not None:
        names = ["multi"]
        names += [f"enhance.{m}" for m in orders.modalities] if wanted.enhancing else []
        signatures = dict.fromkeys(names, (wanted.sketch_dim,) if wanted.sketch_dim else None)
    return Expected(orders.modalities, prototypes, signatures, measurements)
