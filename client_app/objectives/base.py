"""What a local objective is."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bmsfed_app.models import MultiModalNetwork, Output
from bmsfed_app.prototypes import ClassMeans


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
        Class means of the client's data at the received model, by modality.
    global_prototypes : dict
        The server's, by modality; empty before there are any.
    """

    modalities: tuple[str, ...]
    weak: str | None = None
    ratio: float = 1.0
    local_prototypes: dict[str, ClassMeans] = field(default_factory=dict)
    global_prototypes: dict[str, ClassMeans] = field(default_factory=dict)


class Objective:
    """A local training loss."""

    #: True where ``LocalContext.local_prototypes`` must be filled in before training.
    needs_local_prototypes: bool = False

    def loss(
        self, network: MultiModalNetwork, output: Output, labels: Tensor, context: LocalContext
    ) -> Tensor:
        """Return the loss (a scalar) of one batch, given the network's output on it."""
        raise NotImplementedError
