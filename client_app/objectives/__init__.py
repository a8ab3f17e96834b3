"""Local objectives by name, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client_app.objectives.base import OBJECTIVES, LocalContext, Needs, Objective


def build_objective(name: str, settings: Mapping[str, Any]) -> Objective:
    """Build an objective by its registered name, with its method's settings.

    Raises
    ------
    ValueError
        If there is no such objective.
    """
    return OBJECTIVES.find(name)(**settings)


__all__ = ["OBJECTIVES", "LocalContext", "Needs", "Objective", "build_objective"]
