"""Local objectives by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from client_app.objectives.base import LocalContext, Objective
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.objectives.feature_alignment import FeatureAlignment
from client_app.objectives.frozen_head import FrozenHead
from client_app.objectives.modal_enhancement import ModalEnhancement

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "cross_entropy": CrossEntropy,
    "feature_alignment": FeatureAlignment,
    "frozen_head": FrozenHead,
    "modal_enhancement": ModalEnhancement,
}


def build_objective(name: str, settings: Mapping[str, Any]) -> Objective:
    """Build an objective by its registered name.

    Raises
    ------
    ValueError
        If there is no such objective.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective '{name}' (known: {', '.join(OBJECTIVES)})")
    return OBJECTIVES[name](**settings)


__all__ = ["OBJECTIVES", "LocalContext", "Objective", "build_objective"]
