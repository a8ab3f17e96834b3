"""Strategies for multi-modal federated learning, usable in any Flower project.

Importing this package loads neither torch nor ray. :mod:`strategies.classic` has the same for
Flower's classic interface, :mod:`strategies.client` the client's side.
"""

from . import _flower  # noqa: F401  (first: an old Flower is refused with a reason)
from .aggregation import aggregate_parts, imbalance_ratios, weighted_mean
from .agm import AGM
from .base import EvaluationModel, ModalityStrategy
from .bmsfed import BMSFed
from .callbacks import Callback, ClientReport, Metric, RoundReport
from .divfl import DivFL
from .fedavg import FedAvg
from .fedmsplit import FedMSplit
from .fednh import FedNH
from .fedpac import FedPAC
from .fleet import Fleet
from .g_blending import GBlending
from .local import LocalTraining
from .loop import FederationError
from .modality_dropout import ModalityDropout
from .parts import Parts
from .pow_d import PowerOfChoice
from .protocol import Arrays, Assignment, ClientInfo, Prototypes, Task, Update
from .random_modality import RandomModality
from .state import ServerState

__all__ = [
    "AGM",
    "Arrays",
    "Assignment",
    "BMSFed",
    "Callback",
    "ClientInfo",
    "ClientReport",
    "DivFL",
    "EvaluationModel",
    "FedAvg",
    "FedMSplit",
    "FedNH",
    "FedPAC",
    "FederationError",
    "Fleet",
    "GBlending",
    "LocalTraining",
    "Metric",
    "ModalityDropout",
    "ModalityStrategy",
    "Parts",
    "PowerOfChoice",
    "Prototypes",
    "RandomModality",
    "RoundReport",
    "ServerState",
    "Task",
    "Update",
    "aggregate_parts",
    "imbalance_ratios",
    "weighted_mean",
]
