"""Count-sketch: signatures of fixed length whose distances stay comparable across clients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20  # coordinates at a time: bounds the temporary arrays
MAX_DIM = 1 << 30  # a key, 2·bucket + sign, has to fit 32 bits


def count_sketch(parts: Mapping[str, NDArray[Any]], dim: int, seed: int) -> NDArray[np.float32]:
    """Return the count-sketch of the parts laid end to end.

    Every coordinate is added, with a random sign, to one of ``dim`` buckets (Charikar, Chen and
    Farach-Colton, 2002). Inner products are kept in expectation; distances to about √(2/dim).
    Bucket and sign depend on (seed, part's name, index in the part) and ``dim`` alone: a missing
    part counts as a block of zeros, and the sketches of disjoint sets of parts add up.

    Parameters
    ----------
    parts : mapping of str to ndarray (length,)
        Vectors by name.
    dim : int
        Numbers in the sketch, 1 to 2**30.
    seed : int
        Any integer; sketches compare only under the same seed and ``dim``.

    Returns
    -------
    ndarray (dim,), float32

    Raises
    ------
    ValueError
        If ``dim`` is out of range or a part is not a vector.
    """
    if not 1 <= dim <= MAX_DIM:
        raise ValueError(f"dim is {dim}: a sketch has 1 to {MAX_DIM} numbers")
    total = np.zeros(2 * dim)
    for name, values in sorted(parts.items()):
        if values.ndim != 1:
            raise ValueError(f"part {name!r} has shape {values.shape}: flatten it first")
        keys = _keys(int(seed), name, values.size, dim)
        for lo in range(0, values.size, CHUNK):
            chunk = slice(lo, lo + CHUNK)
            total += np.bincount(keys[chunk], weights=values[chunk], minlength=2 * dim)
    return (total[::2] - total[1::2]).astype(np.float32)


@lru_cache(maxsize=8)
def _keys(seed: int, name: str, length: int, dim: int) -> NDArray[np.int32]:
    """2·bucket + (0 for plus, 1 for minus) of each coordinate, (length,)."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    start = np.uint64(int.from_bytes(digest, "little"))
    keys = np.empty(length, np.int32)
    for lo in range(0, length, CHUNK):
        hi = min(lo + CHUNK, length)
        bits = _splitmix64(start, np.arange(lo, hi, dtype=np.uint64))
        bucket = ((bits >> np.uint64(32)) * np.uint64(dim)) >> np.uint64(32)
        keys[lo:hi] = (bucket << np.uint64(1)) | (bits & np.uint64(1))
    keys.flags.writeable = False
    return keys


def _splitmix64(start: np.uint64, index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The index-th outputs of SplitMix64: unlike numpy's streams, fixed for every version."""
    z = index * np.uint64(0x9E3779B97F4A7C15) + start
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
