"""Schedules of the learning rate by name: adding one is adding a function.

Each gives a round's rate from ``progress``, the share of the way from the first round (0) to the
last (1), and the keys ``lr``, ``lr_min`` and ``decay_from`` of the experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bmsfed_app.registry import Registry, not_callable

#: Rate from (progress, lr, lr_min, decay_from).
Schedule = Callable[[float, float, float, float], float]

SCHEDULES: Registry[Schedule] = Registry("schedule", "bmsfed.schedules", check=not_callable)


@SCHEDULES.register("linear")
def linear(progress: float, lr: float, lr_min: float, decay_from: float) -> float:
    """Stay until ``decay_from``, then fall linearly to ``lr_min`` at the last round."""
    if progress <= decay_from:
        return lr
    return lr + (lr_min - lr) * (progress - decay_from) / (1 - decay_from)


@SCHEDULES.register("cosine")
def cosine(progress: float, lr: float, lr_min: float, decay_from: float) -> float:
    """Stay until ``decay_from``, then fall to ``lr_min`` along half a cosine."""
    fallen = linear(progress, 0.0, 1.0, decay_from)
    return lr + (lr_min - lr) * (1 - math.cos(math.pi * fallen)) / 2


@SCHEDULES.register("constant")
def constant(progress: float, lr: float, lr_min: float, decay_from: float) -> float:
    """Stay, whatever ``lr_min`` and ``decay_from`` are."""
    return lr
