"""Checks on what a client sends, before any of it reaches the model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .protocol import Arrays, Update


def find_fault(
    update: Update,
    expected: Arrays,
    *,
    num_classes: int | None = None,
    dimensions: Mapping[str, int] | None = None,
) -> str | None:
    """Say what is wrong with an update, or None if it may be used.

    Parameters
    ----------
    update : Update
        A client's answer.
    expected : dict
        The arrays it was to train: names, shapes and types must match exactly.
    num_classes : int, optional
        Rows that prototypes must have.
    dimensions : mapping, optional
        Length of each signature already known to the server, by name.
    """
    if update.num_samples < 0:
        return f"negative sample count {update.num_samples}"
    fault = _array_fault(update.arrays, expected)
    if fault:
        return fault
    for modality, p in update.prototypes.items():
        rows = num_classes if num_classes is not None else len(p.counts)
        if p.means.ndim != 2 or p.means.shape[0] != rows or p.counts.shape != (rows,):
            return f"prototypes of '{modality}' have shape {p.means.shape}, expected {rows} rows"
        if (p.counts < 0).any() or not np.isfinite(p.means[p.counts > 0]).all():
            return f"prototypes of '{modality}' are not finite or have negative counts"
    for what, values in (("score", update.scores), ("imbalance ratio", update.ratios)):
        for modality, value in values.items():
            if not (math.isfinite(value) and value > 0):
                return f"{what} of '{modality}' is {value}"
    for name, vector in update.signatures.items():
        length = (dimensions or {}).get(name, vector.size)
        if vector.shape != (length,):
            return f"signature '{name}' has shape {vector.shape}, expected ({length},)"
        if not np.isfinite(vector).all():
            return f"signature '{name}' holds NaN or infinity"
    return None


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
            return f"array '{name}' holds NaN or infinity"
    return None
