"""What a local objective is, and what it may look at."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import MultiModalNetwork, Output
from bmsfed_app.optimizers import build_optimizer
from bmsfed_app.prototypes import ClassMeans
from bmsfed_app.registry import Registry
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData, training_device
from strategies import Arrays, Orders
from strategies.randomness import integer_seed


@dataclass
class LocalContext:
    """What an objective may look at besides the network and the batch.

    Attributes
    ----------
    orders : Orders
        What the strategy told this client for this message.
    settings : ClientSettings
        What the experiment told all clients.
    features : dict
        Features (n, D) of all the client's samples at the received model, by modality, where the
        objective needs them.
    local_prototypes : dict
        Class means of the client's data at the received model, by modality; an objective that
        refreshes them may replace them.
    global_prototypes : dict
        The server's, by modality; empty before there are any.
    """

    orders: Orders
    settings: ClientSettings
    features: dict[str, Tensor] = field(default_factory=dict)
    local_prototypes: dict[str, ClassMeans] = field(default_factory=dict)
    global_prototypes: dict[str, ClassMeans] = field(default_factory=dict)

    @classmethod
    def of(cls, orders: Orders, settings: ClientSettings) -> LocalContext:
        """Begin with the server's prototypes, on the training device."""
        device = training_device(settings)
        known = {m: ClassMeans.from_message(p, device) for m, p in orders.prototypes.items()}
        return cls(orders, settings, global_prototypes=known)

    def begin(self, local_prototypes: dict[str, ClassMeans]) -> None:
        """Take the client's prototypes at the received model.

        Who only measures has no others yet and knows no weak modality: its prototypes stand for
        the server's, and one modality alone is taken for the weak one.
        """
        self.local_prototypes = local_prototypes
        if self.orders.kind != "train":
            self.global_prototypes = local_prototypes
            alone = self.orders.modalities[0] if len(self.orders.modalities) == 1 else None
            self.orders = replace(self.orders, weak=alone)

    def optimizer(
        self, parameters: Iterable[nn.Parameter], lr: float | None = None
    ) -> torch.optim.Optimizer:
        """Return the experiment's optimiser, without a past, at the round's rate or another."""
        settings = self.settings
        return build_optimizer(
            settings.optimizer,
            parameters,
            lr=settings.lr if lr is None else lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def seed(self, purpose: str) -> int:
        """Return the seed for one purpose of this client and round."""
        orders = self.orders
        return integer_seed(self.settings.seed, purpose, orders.round, orders.client_id)

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a generator for one purpose of this client and round."""
        return torch.Generator(device).manual_seed(self.seed(purpose))


class Needs(enum.Flag):
    """What an objective is given besides the network and batches; each costs a pass at most."""

    NOTHING = 0
    #: ``LocalContext.local_prototypes``, where several modalities are assigned.
    LOCAL_PROTOTYPES = enum.auto()
    #: They, and ``LocalContext.features``, whatever is assigned.
    FEATURES = enum.auto()
    #: The features at the trained model, for ``after_training``.
    TRAINED_FEATURES = enum.auto()


class Objective:
    """A local training loss, with hooks around it for methods that do more.

    An objective is built afresh for every task and bound to its network and context before any
    other hook runs, so it may keep what it likes on itself while it trains; what must outlast the
    task goes to the server as measurements. In :meth:`loss` and :meth:`after_backward` it leaves
    numbers on the device: who looks at one (``float``, a mask as an index) waits for the device,
    with every mini-batch. Its hyper-parameters come from the method's settings, where their
    defaults and ranges stand.

    Attributes
    ----------
    network : MultiModalNetwork
        With the parts that are assigned; trained in place.
    context : LocalContext
    """

    #: Beginnings of the names of arrays that mini-batches do not train.
    frozen: ClassVar[tuple[str, ...]] = ()
    #: Beginnings of the names of arrays that are not sent back.
    kept_back: ClassVar[tuple[str, ...]] = ()
    #: Whether several clients may be trained at once, by :meth:`packed_loss` in place of
    #: :meth:`loss` and without the hooks :meth:`on_epoch`, :meth:`on_batch` and
    #: :meth:`after_backward`. Each class says so of itself: it is not inherited.
    packs: ClassVar[bool] = False
    #: Why no sample may lack a modality that is trained with others; empty: any may. Features and
    #: parts of absent rows are zeros, which say nothing: see :meth:`Output.of` for the others.
    no_gaps: ClassVar[str] = ""

    network: MultiModalNetwork
    context: LocalContext

    @property
    def needs(self) -> Needs:
        """What is to be measured for it."""
        return Needs.NOTHING

    def bind(self, network: MultiModalNetwork, context: LocalContext) -> Self:
        """Take the network and the context of the task; return itself.

        Raises
        ------
        ValueError
            If the network is not of the kind that the objective trains.
        """
        self.network, self.context = network, context
        return self

    def training_data(self, data: LocalData) -> LocalData:
        """Return the samples to train on: all, unless some are held out."""
        return data

    def on_start(self, data: LocalData) -> None:
        """Run once before training, at the received model."""

    def on_epoch(self, data: LocalData, epoch: int) -> None:
        """Run before each epoch, counted from 0."""

    def on_batch(self, inputs: dict[str, Tensor]) -> None:
        """Run before a mini-batch goes through the network, whose :meth:`loss` comes next."""

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        """Return the loss (a scalar) of one batch, given the network's output: cross-entropy."""
        return F.cross_entropy(output.logits, labels)

    def total(self, output: Output, labels: Tensor) -> Tensor:
        """Return what is minimised: the loss, and the uni-modal losses by ``uni_weight``."""
        return self._with_uni(self.loss(output, labels), output, labels)

    def uni_losses(self, output: Output, labels: Tensor) -> Tensor:
        """Cross-entropy (a,) of each modality through its own columns of the fused head.

        Of ``W_m z_m + b``, the logits of a client that trains m alone, over the samples that have
        m; 0 where none has. Source: "uniform baseline" in
        https://github.com/GeWu-Lab/MMPareto_ICML2024, which has heads of their own for them.

        Raises
        ------
        ValueError
            If the head has no columns by modality.
        """
        head = self.network.head
        if not head.additive:
            raise ValueError(f"the head '{self.network.spec.head}' has no columns by modality")
        logits = torch.stack([head.fuse({m: part}) for m, part in output.parts.items()])
        a, b, k = logits.shape
        each = F.cross_entropy(logits.reshape(a * b, k), labels.repeat(a), reduction="none")
        if not output.present:
            return each.view(a, b).mean(dim=1)
        held = output.held()
        return (each.view(a, b) * held).sum(dim=1) / held.sum(dim=1).clamp(min=1)

    def _with_uni(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add the uni-modal losses; one modality alone has its own as its loss already."""
        weight = self.context.settings.uni_weight
        if weight == 0 or len(output.parts) < 2:
            return loss
        return loss + weight * self.uni_losses(output, labels).sum()

    def after_backward(self, output: Output, labels: Tensor) -> None:
        """Run between the backward pass and the optimiser's step; may change gradients."""

    def pack(self) -> dict[str, Tensor]:
        """Return what :meth:`packed_loss` looks at of this client, once training has started.

        Names and shapes are the same for all clients that train the same modalities.
        """
        return {}

    def packed_loss(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return one client's loss as :meth:`loss` does, under ``torch.func.vmap``.

        So it must not look into tensors, and of what tells clients apart at nothing but ``own``,
        which is from :meth:`pack`; parameters are to be read through ``self.network``.
        """
        return F.cross_entropy(output.logits, labels)

    def packed_total(self, output: Output, labels: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return :meth:`total` as :meth:`packed_loss` returns :meth:`loss`."""
        return self._with_uni(self.packed_loss(output, labels, own), output, labels)

    def metrics(self) -> dict[str, float]:
        """Return numbers of the training that has ended for the history, beside its losses.

        ``<name>.<modality>`` where the method declares a metric of that name.
        """
        return {}

    def after_measuring(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return what the method's strategy must know of the received model, of who only measures.

        The features (n, D) are there where :attr:`needs` asks for them.
        """
        return {}

    def after_training(self, features: dict[str, Tensor], data: LocalData) -> Arrays:
        """Return what the method's strategy must know, as float arrays by name."""
        return {}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of rows (B, K): 0 of none, as where no sample has a modality."""
    return F.cross_entropy(logits, labels) if len(labels) else logits.sum() * 0.0


def _no_objective(thing: object) -> str | None:
    if isinstance(thing, type) and issubclass(thing, Objective):
        return None
    return "is no subclass of client_app.objectives.Objective"


#: Every objective by name; built with the settings that a method gives it.
OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective", "bmsfed.objectives", "client_app.objectives", check=_no_objective
)
