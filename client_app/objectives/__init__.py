"""Local objectives by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from client_app.objectives.agm import AdaptiveGradientModulation
from client_app.objectives.base import LocalContext, Objective
from client_app.objectives.cross_entropy import CrossEntropy
from client_app.objectives.feature_alignment import FeatureAlignment
from client_app.objectives.frozen_head import FrozenHead
from client_app.objectives.g_blending import GradientBlending
from client_app.objectives.greedy import Greedy
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.objectives.ogm_ge import OgmGe
from client_app.objectives.pmr import PrototypicalModalRebalance
from client_app.objectives.prototype_distance import PrototypeDistance
from client_app.objectives.proximal import Proximal

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "cross_entropy": CrossEntropy,
    "feature_alignment": FeatureAlignment,
    "frozen_head": FrozenHead,
    "modal_enhancement": ModalEnhancement,
    "proximal": Proximal,
    "prototype_distance": PrototypeDistance,
    "ogm_ge": OgmGe,
    "pmr": PrototypicalModalRebalance,
    "agm": AdaptiveGradientModulation,
    "g_blending": GradientBlending,
    "greedy": Greedy,
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
