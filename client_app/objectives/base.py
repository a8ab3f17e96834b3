"""What a local objective is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output
from bmsfed_app.prototypes import ClassMeans
from client_app.data import LocalData
from strategies import Arrays
from strategies.randomness import integer_seed


@dataclass
class LocalContext:
    """What an objective may look at besides the batch.

    Attributes
    ----------
    modalities : tuple of str
        Held and assigned this round.
    weak : str or None
        The globally weak modality, where the server knows one.
    ratio : float
        The client's last known imbalance ratio of the weak modality.
    local_prototypes : dict
        Class means of the client's data at the received model, by modality; an objective that
        refreshes them may replace them.
    global_prototypes : dict
        The server's, by modality; empty before there are any.
    features : dict
        Features (n, D) of all the client's samples at the received model, by modality, where the
        objective asked for them.
    progress : float
        Share of the rounds that are complete, in [0, 1).
    state : dict
        What the method's strategy sent for this client and round.
    origin : tuple
        (seed, round, client id): where :meth:`generator` draws from.
    batch_size, momentum, weight_decay, clip_norm : int or float
        The experiment's, for an objective that has a training loop of its own.
    """

    modalities: tuple[str, ...]
    weak: str | None = None
    ratio: float = 1.0
    local_prototypes: dict[str, ClassMeans] = field(default_factory=dict)
    global_prototypes: dict[str, ClassMeans] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    progress: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    origin: tuple[int, int, str] = (0, 0, "")
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a generator for one purpose of this client and round."""
        seed, server_round, client_id = self.origin
        rng = torch.Generator(device)
        return rng.manual_seed(integer_seed(seed, purpose, server_round, client_id))


class Objective:
    """A local training loss, with hooks around it for methods that do more.

    An objective is built afresh for every task, so it may keep what it likes on itself while it
    trains; what must outlast the task goes to the server as measurements.
    """

    #: True where ``LocalContext.local_prototypes`` are to be filled in, for several modalities.
    needs_local_prototypes: bool = False
    #: True where they, and ``LocalContext.features``, are to be filled in whatever is assigned.
    needs_features: bool = False
    #: True where ``after_training`` wants the features at the trained model.
    needs_trained_features: bool = False
    #: Beginnings of the names of arrays that mini-batches do not train.
    frozen: tuple[str, ...] = ()
    #: Beginnings of the names of arrays that are not sent back.
    kept_back: tuple[str, ...] = ()

    def training_data(self, data: LocalData, context: LocalContext) -> LocalData:
        """Return the samples to train on: all, unless some are held out."""
        return data

    def on_start(self, network: MultiModalNetwork, data: LocalData, context: LocalContext) -> None:
        """Run once before training, at the received model."""

    def on_epoch(
        self, network: MultiModalNetwork, data: LocalData, context: LocalContext, epoch: int
    ) -> None:
        """Run before each epoch, counted from 0."""

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the loss (a scalar) of one batch, given the network's output on it."""
        raise NotImplementedError

    def after_backward(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> None:
        """Run between the backward pass and the optimiser's step; may change gradients."""

    def after_training(
        self,
        network: MultiModalNetwork,
        features: dict[str, Tensor],
        data: LocalData,
        context: LocalContext,
    ) -> Arrays:
        """Return what the method's strategy must know, as float arrays by name."""
        return {}
