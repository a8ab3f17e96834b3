"""BMSFed's local work for torch models of other projects: enhancement, scores, signatures.

Flower clients that are not ours may leave all of this out (see :mod:`strategies.client`). With it
they do what BMSFed's own clients do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import Output
from bmsfed_app.prototypes import ClassMeans, class_means, enhancement_loss, score
from client_app.objectives import LocalContext
from client_app.objectives.modal_enhancement import ModalEnhancement
from client_app.signatures import enhancement_offered, gradients, offers
from strategies import Prototypes, Update, imbalance_ratios
from strategies.protocol import pack_measurements, unpack_orders
from strategies.sketch import count_sketch


class LocalTask:
    """What a strategy asks of one torch client this round, and what the client answers.

    Parameters
    ----------
    config : mapping
        The config that the client received, behind :class:`strategies.client.ModalityMod` or from
        :mod:`strategies.classic`.
    num_classes : int
        Classes of the labels.
    device : torch.device or str, default "cpu"
        Where the model is.

    Attributes
    ----------
    modalities : tuple of str
        Assigned; only these may be trained.
    probe : bool
        Whether the server only measures: what is trained will be dropped.

    Raises
    ------
    ValueError
        If the config is not of one of our strategies.

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
    ) -> None:
        if "task" not in config:
            raise ValueError(
                "the config holds no task: is the server's strategy one of `strategies`, and "
                "strategies.client.ModalityMod among the ClientApp's mods?"
            )
        orders = unpack_orders(config)
        self.modalities, self.settings = orders.modalities, orders.settings
        self.probe = bool(config.get("probe", False))
        self.num_classes = num_classes
        self.objective = ModalEnhancement()
        self.context = LocalContext(
            self.modalities,
            None if self.probe else self.settings.get("weak"),
            float(self.settings.get("ratio", 1.0)),
        )
        self.context.global_prototypes = {
            m: ClassMeans(
                torch.tensor(p.means, device=device), torch.tensor(p.counts, device=device)
            )
            for m, p in orders.prototypes.items()
        }
        self._update = Update("", self.modalities)

    def begin(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Take local prototypes at the received model (Eq. 5).

        Parameters
        ----------
        features : mapping
            Features (n, D) of the client's samples by modality assigned.
        labels : Tensor (n,), int64
        """
        self.context.local_prototypes = self._means(features, labels)
        if self.probe:  # nobody knows global prototypes yet
            self.context.global_prototypes = self.context.local_prototypes
            if len(self.modalities) == 1:
                self.context.weak = self.modalities[0]

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
        if len(features) > 1 and not self.context.local_prototypes:
            raise RuntimeError("call LocalTask.begin with all samples' features before training")
        output = Output(dict(features), logits=torch.empty(0))  # of which logits are not read
        target = self.objective.target(output, labels, self.context)
        if target is None or target[1] <= 0 or target[0] not in self.context.global_prototypes:
            return torch.zeros((), device=labels.device)
        weak, coefficient = target
        prototypes = self.context.global_prototypes[weak]
        return coefficient * enhancement_loss(features[weak], labels, prototypes)

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
        """
        wanted = self.settings.get("signature", {})
        if wanted.get("kind") != "decoupled" or wanted["dim"] == 0:
            return
        encoder_of = self.settings["encoder_of"]
        parameters: dict[str, list[nn.Parameter]] = {m: [] for m in self.modalities}
        for name, parameter in model.named_parameters():
            if encoder_of.get(name) in parameters and parameter.requires_grad:
                parameters[encoder_of[name]].append(parameter)
        loss = F.cross_entropy(logits, labels)
        ce = gradients(parameters, loss, retain=True)
        offered: dict[str, Tensor] = {}
        if wanted["enhancing"]:
            total = enhancement_offered(features, labels, self.objective, self.context)
            offered = gradients(parameters, total, retain=True)
        multi, enhancing = offers(
            {m: v.cpu().numpy() for m, v in ce.items()},
            {m: v.cpu().numpy() for m, v in offered.items()},
            partial=len(self.modalities) == 1 < self.settings["held"],
        )
        dim, seed = wanted["dim"], wanted["seed"]
        signatures = self._update.signatures
        if multi is not None:
            signatures["multi"] = count_sketch(multi, dim, seed)
        for m, vector in enhancing.items():
            signatures[f"enhance.{m}"] = count_sketch({m: vector}, dim, seed)

    def measure(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Take prototypes, scores and imbalance ratios (Eqs. 14, 16, 17), after training.

        Parameters
        ----------
        features : mapping
            Features (n, D) of the client's samples by modality assigned, at the trained model.
        labels : Tensor (n,), int64
        """
        means = self._means(features, labels)
        self._update.prototypes = {
            m: Prototypes(p.means.cpu().numpy(), p.counts.cpu().numpy()) for m, p in means.items()
        }
        self._update.scores = {m: score(z, labels, means[m]) for m, z in features.items()}
        if len(features) > 1:
            self._update.ratios = imbalance_ratios(self._update.scores)

    def answer(self) -> dict[str, Any]:
        """Return what was measured, for a ConfigRecord or a NumPyClient's metrics."""
        return dict(pack_measurements(self._update))

    def _means(self, features: Mapping[str, Tensor], labels: Tensor) -> dict[str, ClassMeans]:
        if set(features) != set(self.modalities):
            raise ValueError(
                f"features of {sorted(features)} were given, {list(self.modalities)} are assigned"
            )
        return {m: class_means(z.detach(), labels, self.num_classes) for m, z in features.items()}
