"""Strategies for multi-modal federated learning, usable in any Flower project.

Importing this package loads neither torch nor ray. :mod:`strategies.classic` has the same for
Flower's classic interface, :mod:`strategies.client` the client's side.
"""

import sys
from importlib import import_module

from . import _flower  # noqa: F401  (first: an old Flower is refused with a reason)
from .aggregation import aggregate_parts, imbalance_ratios, weighted_mean
from .agm import AGM
from .base import ModalityStrategy
from .bmsfed import BMSFed
from .bmsfed_plus import BMSFedPlus
from .callbacks import Callback, ClientReport, Metric, RoundReport
from .decisions import Decisions
from .divfl import DivFL
from .evaluated import EvaluationModel
from .fedavg import FedAvg
from .federation.errors import FederationError, Paused
from .federation.fleet import Fleet
from .federation.parts import Parts
from .federation.waiting import Deadline, Waiting
from .fedmsplit import FedMSplit
from .fednh import FedNH
from .fedpac import FedPAC
from .g_blending import GBlending
from .local import LocalTraining
from .messages import (
    Arrays,
    Assignment,
    ClientInfo,
    Orders,
    Prototypes,
    SignatureOrders,
    Task,
    Update,
)
from .mfedmc import MFedMC
from .modality_dropout import ModalityDropout
from .pmcmfl import PmcmFL
from .pow_d import PowerOfChoice
from .private_head import PrivateHead
from .random_modality import RandomModality
from .state import ServerState
from .with_callbacks import WithCallbacks

#: Modules that moved answer to the names under which they were published, too.
for _old, _new in {
    **{name: f"selection.{name}" for name in "facility signatures sketch submodular".split()},
    **{name: f"federation.{name}" for name in "fleet loop parts registrar transport".split()},
    "validation": "federation.validation",
    "message": "federation.flower",
    "foreign": "federation.dialects",
}.items():
    sys.modules[f"{__name__}.{_old}"] = import_module(f"{__name__}.{_new}")

__all__ = [
    "AGM",
    "Arrays",
    "Assignment",
    "BMSFed",
    "BMSFedPlus",
    "Callback",
    "ClientInfo",
    "ClientReport",
    "Deadline",
    "Decisions",
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
    "MFedMC",
    "Metric",
    "ModalityDropout",
    "ModalityStrategy",
    "Orders",
    "Parts",
    "Paused",
    "PmcmFL",
    "PowerOfChoice",
    "PrivateHead",
    "Prototypes",
    "RandomModality",
    "RoundReport",
    "ServerState",
    "SignatureOrders",
    "Task",
    "Update",
    "Waiting",
    "WithCallbacks",
    "aggregate_parts",
    "imbalance_ratios",
    "weighted_mean",
]
