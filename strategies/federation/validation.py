"""Checks on what a client sends, before any of it reaches the model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..messages import Arrays, Prototypes, Update

#: What is said of arrays that have diverged.
NOT_FINITE = "holds NaN or infinity"


def find_fault(
    update: Update,
    expected: Arrays,
    *,
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Say what is wrong with an update, or None if it may be used.

    Parameters
    ----------
    update : Update
        A client's answer.
    expected : dict
        The arrays it was to train: names, shapes and types must match exactly.
    shapes : mapping
        Shapes of prototypes and signatures that the server has already accepted, by the names of
        :func:`shapes_of`: whoever comes later must fit.
    """
    if update.num_samples < 0:
        return f"negative sample count {update.num_samples}"
    fault = _array_fault(update.arrays, expected)
    if fault:
        return fault
    for modality, p in update.prototypes.items():
        shape = shapes.get(f"prototypes.{modality}", p.means.shape)
        if len(shape) != 2 or p.means.shape != shape or p.counts.shape != shape[:1]:
            return f"prototypes of '{modality}' have shape {p.means.shape}, expected {shape}"
        if (p.counts < 0).any() or not np.isfinite(p.means[p.counts > 0]).all():
            return f"prototypes of '{modality}' are not finite or have negative counts"
    for what, values in (("score", update.scores), ("imbalance ratio", update.ratios)):
        for modality, value in values.items():
            if not (math.isfinite(value) and value > 0):
                return f"{what} of '{modality}' is {value}"
    for name, vector in update.signatures.items():
        shape = shapes.get(f"signatures.{name}", (vector.size,))
        if vector.shape != shape:
            return f"signature '{name}' has shape {vector.shape}, expected {shape}"
        if not np.isfinite(vector).all():
            return f"signature '{name}' holds NaN or infinity"
    for name, array in update.measurements.items():
        if not (np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all()):
            return f"measurement '{name}' is not finite"
    return None


def shapes_of(
    prototypes: Mapping[str, Prototypes], signatures: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of one client's measurements: ``prototypes.<modality>``, ``signatures.<name>``."""
    shapes: dict[str, tuple[int, ...]] = {
        f"prototypes.{m}": p.means.shape for m, p in prototypes.items()
    }
    return shapes | {f"signatures.{n}": v.shape for n, v in signatures.items()}


def _array_fault(arrays: Arrays, expected: Arrays) -> str | None:
    if missing := sorted(set(expected) - set(arrays)):
        return f"missing array '{missing[0]}' ({len(missing)} missing)"
    if unknown := sorted(set(arrays) - set(expected)):
        return f"unknown array '{unknown[0]}' ({len(unknown)} unknown)"
    for name, value in arrays.items():
        want = expected[name]
        if value.shape != want.shape or value.dtype != want.dtype:
            return (
                f"array '{name}' is {value.dtype}{list(value.shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            return (
                f"array '{name}' {NOT_FINITE}: lower the client's learning rate, clip its "
                "gradients, or standardise its inputs"
            )
    return None
