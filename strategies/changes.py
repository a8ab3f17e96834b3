"""How a client changed what it was sent: by which unit it is looked at, inner products, norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Arrays with these endings follow the data, not a gradient.
_STATISTICS = ("running_mean", "running_var")

#: Numbers at a time: so few that BLAS never divides a product among threads, whose number would
#: change the last bits, and that the buffers stay in a core's nearest cache.
_BLOCK = 1 << 13


def block_of(name: str) -> str:
    """Return the block that an array belongs to: a modality's encoder, or the whole head.

    >>> block_of("encoders.gray.conv1.weight"), block_of("head.weight.gray")
    ('encoders.gray', 'head')
    """
    scope, *path = name.split(".")
    return f"{scope}.{path[0]}" if scope == "encoders" else scope


def is_statistic(name: str) -> bool:
    """Whether an array is a running statistic of a batch norm."""
    return name.endswith(_STATISTICS)


def unit_of(name: str) -> str:
    """Return what an array's change is compared within: its block, statistics by themselves.

    Batch norms' statistics have the scale of the data, which would drown the weights'.

    >>> unit_of("encoders.gray.bn.weight"), unit_of("encoders.gray.bn.running_var")
    ('encoders.gray', 'encoders.gray statistics')
    """
    return f"{block_of(name)} statistics" if is_statistic(name) else block_of(name)


def is_float(array: NDArray[Any]) -> bool:
    """Whether an array holds floats: integers count batches, and have no norm."""
    return np.issubdtype(array.dtype, np.floating)


def product(new: NDArray[Any], old: NDArray[Any], towards: NDArray[Any] | None = None) -> float:
    """Return the inner product of ``new - old`` with another change, or with itself.

    Parameters
    ----------
    new, old : array
        Of one shape.
    towards : array, optional
        Of that shape.

    Returns
    -------
    float
        The same to the last bit on any number of threads; infinite where the numbers are too
        large.
    """
    fast = np.promote_types(np.result_type(new, old), np.float32)
    total = _product(new, old, towards, fast)
    if not np.isfinite(total) and fast != np.float64:  # squares of float32 overflow early
        total = _product(new, old, towards, np.dtype(np.float64))
    return total if np.isfinite(total) else np.inf


def _product(
    new: NDArray[Any], old: NDArray[Any], towards: NDArray[Any] | None, kind: np.dtype[Any]
) -> float:
    """Multiply in one precision, block by block; the blocks' products are summed in float64."""
    after, before = np.ravel(new), np.ravel(old)
    other = None if towards is None else np.ravel(towards)
    change = np.empty(min(_BLOCK, after.size), kind)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, after.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            part = change[: len(after[block])]
            np.subtract(after[block], before[block], out=part, dtype=kind)
            total += float(
                np.dot(part, part if other is None else other[block].astype(kind, copy=False))
            )
    return total
