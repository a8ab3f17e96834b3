"""Checks on what a client sends, before any of it reaches the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..expected import Expected, Shape
from ..messages import RIGHT, TESTED, Arrays, Prototypes, Update

#: Said of an answer whose numbers are not; where all are so, the model is to blame.
NOT_FINITE = "holds NaN or infinity"

#: Vectors are compared in float32, where squares of larger numbers overflow.
_LARGEST_OF_VECTORS = 1e15

#: No honest number is larger: a score is at least 1e-12, and at most the number of samples.
_LARGEST = 1e30

#: Numbers in all vectors whose shape nobody knows beforehand, of one answer.
_MOST_NUMBERS = 10**8

#: Measurements of one answer, where the method does not say which it takes.
_MOST_MEASUREMENTS = 256


def find_fault(
    update: Update, arrays: Arrays, expected: Expected, *, most_samples: int
) -> str | None:
    """Say what is wrong with an update, or None if it may be used.

    Parameters
    ----------
    update : Update
        A client's answer.
    arrays : dict
        The arrays it was to train: names, shapes and types must match exactly.
    expected : Expected
        What else it may hold. A shape that is None there is not looked at: see
        :func:`shapes_by_vote`.
    most_samples : int
        Samples that the client has.
    """
    if update.num_samples > most_samples:
        return f"it answers for {update.num_samples} samples, but enrolled with {most_samples}"
    if sorted(update.modalities) != sorted(expected.modalities):
        asked = list(expected.modalities)
        return f"it answers for modalities {list(update.modalities)}, asked for were {asked}"
    return (
        _presence_fault(update)
        or _array_fault(update.arrays, arrays)
        or _prototype_fault(update.prototypes, expected.prototypes, most_samples)
        or _number_fault("score", update.scores, expected)
        or _number_fault("imbalance ratio", update.ratios, expected)
        or _signature_fault(update.signatures, expected.signatures)
        or _measurement_fault(update.measurements, expected.measurements)
        or _size_fault(update)
    )


def shape_fault(update: Update, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Say what of an update has another shape than is known by :func:`shapes_of`'s names."""
    for modality, p in update.prototypes.items():
        want = shapes.get(f"prototypes.{modality}", p.means.shape)
        if p.means.shape != want:
            return f"prototypes of '{modality}' have shape {p.means.shape}, expected {want}"
    for name, vector in update.signatures.items():
        want = shapes.get(f"signatures.{name}", vector.shape)
        if vector.shape != want:
            return f"signature '{name}' has shape {vector.shape}, expected {want}"
    return None


def shapes_by_vote(updates: Iterable[Update]) -> dict[str, tuple[int, ...]]:
    """Return the shape that most updates have, by :func:`shapes_of`'s names; equal: the first's."""
    votes: dict[str, Counter[tuple[int, ...]]] = {}
    for update in updates:
        for name, shape in shapes_of(update.prototypes, update.signatures).items():
            votes.setdefault(name, Counter())[shape] += 1
    return {name: counted.most_common(1)[0][0] for name, counted in votes.items()}


def shapes_of(
    prototypes: Mapping[str, Prototypes], signatures: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of one client's measurements: ``prototypes.<modality>``, ``signatures.<name>``."""
    shapes: dict[str, tuple[int, ...]] = {
        f"prototypes.{m}": p.means.shape for m, p in prototypes.items()
    }
    return shapes | {f"signatures.{n}": v.shape for n, v in signatures.items()}


def model_fault(arrays: Arrays) -> str | None:
    """Say which array of a global model is not finite, or None."""
    for name, value in arrays.items():
        if not _finite(value):
            return (
                f"array '{name}' of the global model {NOT_FINITE}: the model diverged or was "
                "poisoned before; resume from an earlier checkpoint (round=N), or lower lr"
            )
    return None


def _finite(values: NDArray[Any]) -> bool:
    return not np.issubdtype(values.dtype, np.inexact) or bool(np.isfinite(values).all())


def _within(values: NDArray[Any], largest: float) -> bool:
    """Whether real floats are finite and not too large, without a copy of their absolutes."""
    if not np.issubdtype(values.dtype, np.floating):
        return False
    if not values.size:
        return True
    return bool(-largest <= values.min() and values.max() <= largest)  # NaN compares as False


def _unknown(what: str, names: Iterable[str], known: Iterable[str]) -> str | None:
    if extra := sorted(set(names) - set(known)):
        return f"unexpected {what} '{extra[0][:60]}' ({len(extra)} unexpected)"
    return None


def _presence_fault(update: Update) -> str | None:
    if fault := _unknown("sample count of", update.present, update.modalities):
        return fault
    for modality, count in update.present.items():
        if not 0 < count <= update.num_samples:
            return (
                f"it answers for {count} samples with '{modality}', of {update.num_samples} in "
                "all: count those that have it, and leave out a modality that none has"
            )
    return None


def count_fault(update: Update) -> str | None:
    """Say what is wrong with what a client counted of the samples that it tested, or None."""
    if lacking := [name for name in (TESTED, RIGHT) if name not in update.metrics]:
        return f"its test does not say how many samples are '{lacking[0]}': mend the client's app"
    tested, right = update.metrics[TESTED], update.metrics[RIGHT]
    if not (0 <= right <= tested and tested == int(tested) and right == int(right)):
        return (
            f"of {tested:g} samples tested it counts {right:g} as right, which cannot be: mend the "
            "client's app"
        )
    return None


def _array_fault(arrays: Arrays, expected: Arrays) -> str | None:
    if missing := sorted(set(expected) - set(arrays)):
        return f"missing array '{missing[0]}' ({len(missing)} missing)"
    if unknown := sorted(set(arrays) - set(expected)):
        return f"unknown array '{unknown[0][:200]}' ({len(unknown)} unknown)"
    for name, value in arrays.items():
        want = expected[name]
        if value.shape != want.shape or value.dtype != want.dtype:
            return (
                f"array '{name}' is {value.dtype}{list(value.shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
        if not _finite(value):
            return (
                f"array '{name}' {NOT_FINITE}: lower the client's learning rate, clip its "
                "gradients, or standardise its inputs"
            )
    return None


def _prototype_fault(
    prototypes: Mapping[str, Prototypes], expected: Mapping[str, Shape], most_samples: int
) -> str | None:
    if fault := _unknown("prototypes of", prototypes, expected):
        return fault
    for modality, p in prototypes.items():
        shape = expected[modality] or p.means.shape
        if len(shape) != 2 or p.means.shape != shape or p.counts.shape != shape[:1]:
            return f"prototypes of '{modality}' have shape {p.means.shape}, expected {shape}"
        if p.counts.dtype != np.int64 or not np.issubdtype(p.means.dtype, np.floating):
            found = f"{p.means.dtype} with counts of {p.counts.dtype}"
            return f"prototypes of '{modality}' are {found}, expected floats with int64"
        if (p.counts < 0).any() or not _within(p.means[p.counts > 0], _LARGEST_OF_VECTORS):
            return f"prototypes of '{modality}' are not finite or have negative counts"
        # As floats: a sum of large integers wraps around.
        if p.counts.sum(dtype=np.float64) > most_samples:
            return f"prototypes of '{modality}' count more than the client's {most_samples} samples"
    return None


def _number_fault(what: str, numbers: Mapping[str, float], expected: Expected) -> str | None:
    if fault := _unknown(f"{what} of", numbers, expected.modalities):
        return fault
    for modality, value in numbers.items():
        if not 0 < value <= _LARGEST:
            return f"{what} of '{modality}' is {value}"
    return None


def _signature_fault(
    signatures: Mapping[str, NDArray[np.float32]], expected: Mapping[str, Shape]
) -> str | None:
    if fault := _unknown("signature", signatures, expected):
        return fault
    for name, vector in signatures.items():
        shape = expected[name] or (vector.size,)
        if vector.shape != shape:
            return f"signature '{name}' has shape {vector.shape}, expected {shape}"
        if vector.dtype != np.float32:
            return f"signature '{name}' is {vector.dtype}, expected float32"
        if not _finite(vector):
            return f"signature '{name}' {NOT_FINITE}"
        if not _within(vector, _LARGEST_OF_VECTORS):
            return f"signature '{name}' has numbers beyond {_LARGEST_OF_VECTORS:g}"
    return None


def _measurement_fault(measurements: Arrays, expected: Mapping[str, Shape] | None) -> str | None:
    if expected is None:
        if len(measurements) > _MOST_MEASUREMENTS:
            return f"{len(measurements)} measurements, at most {_MOST_MEASUREMENTS} are taken"
    elif fault := _unknown("measurement", measurements, expected):
        return fault
    for name, array in measurements.items():
        if not _within(array, _LARGEST):
            return f"measurement '{name[:60]}' is not finite"
        shape = (expected or {}).get(name)
        if shape is not None and array.shape != shape:
            return f"measurement '{name}' has shape {array.shape}, expected {shape}"
    return None


def _size_fault(update: Update) -> str | None:
    vectors = [p.means for p in update.prototypes.values()]
    vectors += [*update.signatures.values(), *update.measurements.values()]
    if (size := sum(v.size for v in vectors)) > _MOST_NUMBERS:
        return f"its measurements hold {size:,} numbers, at most {_MOST_NUMBERS:,} are taken"
    return None
