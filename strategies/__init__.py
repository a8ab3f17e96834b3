"""Strategies for multi-modal federated learning, usable in any Flower project.

Importing this package loads neither torch nor ray.
"""

from .aggregation import aggregate_parts, imbalance_ratios, weighted_mean
from .base import ModalityStrategy
from .bmsfed import BMSFed
from .callbacks import Callback, ClientReport, RoundReport
from .fedavg import FedAvg
from .fleet import Fleet
from .loop import FederationError
from .protocol import Arrays, Assignment, ClientInfo, Prototypes, Task, Update
from .state import ServerState

__all__ = [
    "Arrays",
    "Assignment",
    "BMSFed",
    "Callback",
    "ClientInfo",
    "ClientReport",
    "FedAvg",
    "FederationError",
    "Fleet",
    "ModalityStrategy",
    "Prototypes",
    "RoundReport",
    "ServerState",
    "Task",
    "Update",
    "aggregate_parts",
    "imbalance_ratios",
    "weighted_mean",
]
