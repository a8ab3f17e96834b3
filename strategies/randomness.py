"""Random draws that depend on nothing but their purpose.

Every draw comes from a generator seeded by (seed, round, client, purpose), so round 17 after a
restart draws what round 17 would have drawn, whatever ran before it and in whichever process.
"""

from __future__ import annotations

import zlib

import numpy as np


def seed_sequence(seed: int, *purpose: str | int) -> np.random.SeedSequence:
    """Return the seed sequence of one purpose.

    Parameters
    ----------
    seed : int
        The experiment's seed, any integer.
    purpose : str or int
        What the draw is for, e.g. ``("select", 17)`` or ``("batches", 17, "client-03")``.
    """
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else p & 0xFFFFFFFF for p in purpose]
    # The length is part of the entropy: SeedSequence pads with zeros, so (1,) and (1, 0) collide.
    return np.random.SeedSequence([seed & 0xFFFFFFFF, len(words), *words])


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a numpy generator for one purpose; see :func:`seed_sequence`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *purpose)))


def integer_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit integer seed for one purpose, e.g. for ``torch.Generator``."""
    return int(seed_sequence(seed, *purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))
