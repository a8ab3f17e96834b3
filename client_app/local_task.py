"""BMSFed's local work for torch models of other projects: enhancement, scores, signatures.

Flower clients that are not ours may leave all of this out (see :mod:`strategies.client`). With it
they do what BMSFed's own clients do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bmsfed_app.datasets import Inputs
from bmsfed_app.models import NetworkSpec, Output
from bmsfed_app.prototypes import class_means, enhancement_loss
from bmsfed_app.settings import ClientSettings
from client_app.features import measure
from client_app.objectives import LocalContext
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.signatures import decoupled_signatures
from strategies import Update
from strategies.federation.dialects import Parcel
from strategies.protocol import pack_measurements, unpack_orders


class LocalTask:
    """What a strategy asks of one torch client this round, and what the client answers.

    It takes no masks of samples that lack modalities: pass rows that have all assigned modalities,
    to every call and to the training itself, and report their number as ``num-examples``. A row of
    zeros in place of what a sample lacks cannot be told from a feature: it would be trained on.

    Parameters
    ----------
    config : mapping
        The config that the client received, behind :class:`strategies.client.ModalityMod` or from
        :mod:`strategies.classic`.
    num_classes : int
        Classes of the labels.
    device : torch.device or str, default "cpu"
        Where the model is.
    min_class_count : int, default 2
        Of a class with fewer samples neither prototype nor count is sent.

    Attributes
    ----------
    modalities : tuple of str
        Assigned; only these may be trained.
    probe : bool
        Whether the server only measures: what is trained will be dropped.

    Raises
    ------
    ValueError
        If the config is not of one of our strategies; from methods, if a modality has not as many
        rows as there are labels, or comes with a mask of samples that lack it.

    Examples
    --------
    Inside a training function, ``z`` being a dict of features (B, D) by modality::

        task = LocalTask(message.content["config"], num_classes=10)
        task.begin(z_of_all_samples, labels)              # at the received model
        task.sign(model, logits, z, y)                    # one batch; optional
        for x, y in loader:
            z, logits = model(x, task.modalities)
            loss = cross_entropy(logits, y) + task.enhancement(z, y)
            ...
        task.measure(z_of_all_samples, labels)            # at the trained model
        content["config"] = ConfigRecord(task.answer())   # NumPyClient: metrics |= task.answer()
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        num_classes: int,
        *,
        device: torch.device | str = "cpu",
        min_class_count: int = 2,
    ) -> None:
        if "orders" not in config or "parcel" not in config:
            raise ValueError(
                "the config holds no orders: is the server's strategy one of `strategies`, and "
                "strategies.client.ModalityMod among the ClientApp's mods?"
            )
        orders, self._parcel = unpack_orders(config), Parcel.unpack(config)
        self.modalities, self.probe = orders.modalities, orders.kind != "train"
        self.num_classes, self.min_class_count = num_classes, min_class_count
        # Network and training are another project's: of the settings just the device is looked at.
        settings = ClientSettings("", NetworkSpec({}, {}, num_classes), device=str(device))
        self.context = LocalContext.of(orders, settings)
        self.objective = ModalEnhancement.by_default()
        self.objective.context = self.context
        self._update = Update("", self.modalities)

    def begin(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Take local prototypes at the received model (Eq. 5).

        Parameters
        ----------
        features : mapping
            Features (n, D) of the client's samples by modality assigned.
        labels : Tensor (n,), int64
        """
        self._check(features, labels)
        # Whether these are all samples is another project's matter: they may not cover a class.
        means = {m: class_means(z.detach(), labels, self.num_classes) for m, z in features.items()}
        self.context.begin(means)

    def enhancement(self, features: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Modal enhancement of the weak modality (Eqs. 7-9, 19), to be added to the loss.

        Parameters
        ----------
        features : mapping
            Features (B, D) of a batch by modality assigned, with gradients.
        labels : Tensor (B,), int64

        Returns
        -------
        Tensor ()
            Zero where nothing is to be enhanced, or before the server knows prototypes.

        Raises
        ------
        RuntimeError
            If :meth:`begin` was not called and several modalities are assigned.
        """
        _refuse_gaps(features, labels)
        if len(features) > 1 and not self.context.local_prototypes:
            raise RuntimeError("call LocalTask.begin with all samples' features before training")
        target, known = self.objective.target(features, labels), self.context.global_prototypes
        total = torch.zeros((), device=labels.device)
        for modality, weak in target.weak.items():
            if target.enhances and modality in known:
                loss = enhancement_loss(features[modality], labels, known[modality])
                total = total + weak * target.coefficient * loss
        return total

    def sign(
        self, model: nn.Module, logits: Tensor, features: Mapping[str, Tensor], labels: Tensor
    ) -> None:
        """Measure signatures on one batch at the received model (Eqs. 2, 3, 10, 11).

        Without this call the server takes the model's change instead. So it does for
        ``sketch_dim=0`` and ``gradient="update"``, where this does nothing.

        Parameters
        ----------
        model : Module
            Its parameters carry the names of the global model.
        logits : Tensor (B, K)
            Of the batch, with the graph of ``features`` behind them.
        features : mapping
            Features (B, D) of the batch by modality assigned.
        labels : Tensor (B,), int64
        """
        _refuse_gaps(features, labels)
        wanted = self.context.orders.signature
        if wanted is None or wanted.gradient != "decoupled" or wanted.sketch_dim == 0:
            return
        parameters: dict[str, list[nn.Parameter]] = {m: [] for m in self.modalities}
        for name, parameter in model.named_parameters():
            modality = self._parcel.encoder_of.get(name)
            if modality in parameters and parameter.requires_grad:
                parameters[modality].append(parameter)
        batch = Output(dict(features), logits), labels
        self._update.signatures = decoupled_signatures(
            self.objective, wanted, parameters, [batch], 1, held=self._parcel.held, retain=True
        )

    def measure(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Take prototypes, scores and imbalance ratios (Eqs. 14, 16, 17), after training.

        Parameters
        ----------
        features : mapping
            Features (n, D) of the client's samples by modality assigned, at the trained model.
        labels : Tensor (n,), int64
        """
        self._check(features, labels)
        least = self.min_class_count
        measure(self._update, features, labels, self.num_classes, min_class_count=least)

    def answer(self) -> dict[str, Any]:
        """Return what was measured, for a ConfigRecord or a NumPyClient's metrics."""
        return dict(pack_measurements(self._update))

    def _check(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        if set(features) != set(self.modalities):
            raise ValueError(
                f"features of {sorted(features)} were given, {list(self.modalities)} are assigned"
            )
        _refuse_gaps(features, labels)


def _refuse_gaps(features: Mapping[str, Tensor], labels: Tensor) -> None:
    """Refuse rows of samples that lack a modality, as far as they can be told."""
    masked = features.present if isinstance(features, Inputs) else {}
    for modality, z in features.items():
        if modality in masked or len(z) != len(labels):
            raise ValueError(
                f"samples lack '{modality}' ({len(z)} rows of features, {len(labels)} labels"
                f"{', and a mask' if modality in masked else ''}), but LocalTask takes no masks: "
                "pass rows that have all assigned modalities"
            )
