"""Balanced modality selection for multi-modal federated learning, on Flower."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import strategies
from strategies import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [*strategies.__all__, "__version__", "load_model"]

if TYPE_CHECKING:
    from bmsfed_app.prediction import Predictor


def load_model(run: str | Path, server_round: int | Literal["best"] | None = None) -> Predictor:
    """Load the global model of a run; see :func:`bmsfed_app.prediction.load_model`."""
    from bmsfed_app import prediction  # loads torch

    return prediction.load_model(run, server_round)
