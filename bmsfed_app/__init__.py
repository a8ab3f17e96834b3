"""Balanced modality selection for multi-modal federated learning, on Flower."""

import strategies
from strategies import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [*strategies.__all__, "__version__"]
