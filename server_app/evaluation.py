"""Central evaluation of the global model on the test split.

Multi-modal accuracy by the head; each modality's own accuracy by nearest prototype, and by its
own columns of the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets.base import DataError, Split
from bmsfed_app.datasets.finite import extents, faulty_inputs
from bmsfed_app.devices import Precision, find_precision, prepare_device
from bmsfed_app.models import MultiModalNetwork, NetworkSpec
from bmsfed_app.prototypes import ClassMeans, class_means, log_probabilities
from server_app.metrics import measured
from server_app.outcome import Evaluation
from server_app.tally import Tally
from strategies import Arrays, Prototypes
from strategies.protocol import modalities_of

#: What evaluates, as torch chose it for this machine: clients of this process set fewer for their
#: own work, and the last bits of a sum depend on it.
_THREADS = torch.get_num_threads()


@contextmanager
def _on_all_threads() -> Iterator[None]:
    """Compute with as many threads as always, whoever set what before, in this thread or others."""
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Evaluator:
    """Evaluates one network on one split, which it keeps in memory.

    Parameters
    ----------
    spec : NetworkSpec
        The whole network.
    test : Split
        The test split, on ``device``.
    device : torch.device
        CPU or GPU of the ServerApp's process.
    batch_size : int, default 500
        Samples per forward pass.
    metrics : sequence of str, optional
        Names of further metrics; see :mod:`server_app.metrics`.
    precision : {"float32", "tf32", "bf16", "auto"}
    compiled : bool, default False
        Whether encoders run by compiled code.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        test: Split,
        device: torch.device,
        batch_size: int = 500,
        metrics: Sequence[str] = (),
        *,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        precision = find_precision(precision, device)
        prepare_device(device, precision)
        self.networks: dict[tuple[str, ...], MultiModalNetwork] = {}
        self.spec = spec
        self.test = test.to(device)
        self.device, self.batch_size, self.metrics = device, batch_size, tuple(metrics)
        self.precision, self.compiled = precision, compiled

    @_on_all_threads()
    @torch.inference_mode()
    def __call__(
        self,
        arrays: Arrays,
        prototypes: Mapping[str, Prototypes] | None = None,
        absent: Arrays | None = None,
    ) -> Evaluation:
        """Evaluate a global model.

        Parameters
        ----------
        arrays : dict
            The model by state-dict name; of a model that lacks modalities, those it has.
        prototypes : mapping, optional
            Global prototypes of the training data by modality; None takes the class means of
            the test features themselves (the published code's protocol, which uses test labels).
        absent : dict, optional
            What a modality adds to the logits where it is missing, (K,) by modality: see
            :meth:`strategies.Decisions.absent_logits`.

        Raises
        ------
        DataError
            If inputs of the test split are NaN or infinite.
        """
        network, extra = self._network(arrays), self._absent(absent)
        features, labels = self._features(network), self.test.labels
        logits = self._logits(network, features, features, extra)
        loss = float(F.cross_entropy(logits, labels))
        if not math.isfinite(loss):
            self._check_inputs(network.modalities)
        result = Evaluation(
            accuracy=_accuracy(logits, labels),
            loss=loss,
            by_head={
                m: _accuracy(*self._having([m], self._logits(network, features, [m], extra)))
                for m in self._shown(features)
            },
            prototypes="test" if prototypes is None else "train",
            metrics=measured(self.metrics, logits, labels),
        )
        for modality in self._shown(features):
            z, own = self._having([modality], features[modality])
            means = self._means(modality, z, own, prototypes)
            if means is not None:
                result.by_prototype[modality] = _accuracy(log_probabilities(z, means), own)
        return result

    @_on_all_threads()
    @torch.inference_mode()
    def accuracies(
        self,
        arrays: Arrays,
        subsets: Mapping[str, Sequence[str]],
        absent: Arrays | None = None,
    ) -> dict[str, float]:
        """Return the head's test accuracy with subsets of the modalities, by the subsets' names.

        Each is that of the samples that have any of the subset.

        Parameters
        ----------
        arrays : dict
            The model by state-dict name.
        subsets : mapping
            Modalities that the head sees, at least one, by any name; others are left out.
        absent : dict, optional
            What those that are left out add to the logits, (K,) by modality.
        """
        network, extra = self._network(arrays), self._absent(absent)
        features = self._features(network)
        return {
            name: _accuracy(*self._having(seen, self._logits(network, features, seen, extra)))
            for name, seen in subsets.items()
            if self._shown(seen)
        }

    @_on_all_threads()
    @torch.inference_mode()
    def tallies(
        self,
        arrays: Arrays,
        prototypes: Mapping[str, Prototypes] | None = None,
        absent: Arrays | None = None,
    ) -> dict[tuple[str, str], Tally]:
        """Count what a model gets right, by what it sees of the samples.

        Parameters
        ----------
        arrays, prototypes, absent
            As those of a call.

        Returns
        -------
        dict
            By ("all", ""), and by ("prototype", m), ("head", m) and ("without", m) of each
            modality m, of the samples that have what is seen: see
            :class:`bmsfed_app.record.evaluation.SplitViews`.
        """
        network, extra = self._network(arrays), self._absent(absent)
        features = self._features(network)
        logits = self._logits(network, features, features, extra)
        found = {("all", ""): Tally.of(logits.double().log_softmax(dim=1), self.test.labels)}
        parts = {("head", m): [m] for m in features}
        parts |= {("without", m): [o for o in features if o != m] for m in features}
        for view, seen in parts.items():
            if self._shown(seen):
                logits, labels = self._having(seen, self._logits(network, features, seen, extra))
                found[view] = Tally.of(logits.double().log_softmax(dim=1), labels)
        for modality in self._shown(features):
            z, own = self._having([modality], features[modality])
            means = self._means(modality, z, own, prototypes)
            if means is not None:
                found["prototype", modality] = Tally.of(log_probabilities(z, means), own)
        return found

    @_on_all_threads()
    @torch.inference_mode()
    def hits_by_class(
        self, models: Iterable[Arrays], absent: Arrays | None = None
    ) -> NDArray[np.int64]:
        """Return how many test samples of each class each model gets right, (models, K).

        Parameters
        ----------
        models : iterable of dict
            By state-dict name; they may lack modalities. Where one's encoders are the very arrays
            of the one before it, they are not run again.
        absent : dict, optional
            What modalities that a model lacks add to its logits, (K,) by modality.
        """
        extra, labels, found = self._absent(absent), self.test.labels, []
        before: list[Any] = []
        features: dict[str, Tensor] = {}
        for arrays in models:
            encoders = [v for n, v in arrays.items() if n.startswith("encoders.")]
            network = self._network(arrays)
            if len(encoders) != len(before) or any(
                a is not b for a, b in zip(encoders, before, strict=True)
            ):
                features, before = self._features(network), encoders
            right = self._logits(network, features, features, extra).argmax(dim=1) == labels
            found.append(torch.bincount(labels[right], minlength=self.spec.num_classes))
        return torch.stack(found).cpu().numpy()

    def _logits(
        self,
        network: MultiModalNetwork,
        features: Mapping[str, Tensor],
        seen: Iterable[str],
        absent: Mapping[str, Tensor],
    ) -> Tensor:
        """Logits (n, K) from features (n, D) of modalities ``seen``; what lacks adds ``absent``."""
        there = {m: features[m] for m in seen}
        logits: Tensor = network.head(there, self.test.present)
        for modality, constant in absent.items():
            if modality not in there:
                logits = logits + constant
            elif (held := self.test.present.get(modality)) is not None:
                logits = logits + constant * ~held[:, None]
        return logits

    def _having(self, seen: Iterable[str], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return those of the samples' rows (n, ...) that have some of ``seen``, and labels."""
        masks = [self.test.present.get(m) for m in seen]
        held = [mask for mask in masks if mask is not None]
        if len(held) < len(masks):  # one that nobody lacks
            return rows, self.test.labels
        there = torch.stack(held).any(dim=0)
        return rows[there], self.test.labels[there]

    def _shown(self, modalities: Iterable[str]) -> list[str]:
        """Return those of some modalities that any sample has."""
        present = self.test.present
        return [m for m in modalities if m not in present or bool(present[m].any())]

    def _absent(self, absent: Arrays | None) -> dict[str, Tensor]:
        return {m: torch.tensor(v, device=self.device) for m, v in (absent or {}).items()}

    def _check_inputs(self, modalities: Sequence[str]) -> None:
        """Refuse a test split with inputs that are not finite: accuracies mean nothing there."""
        rows = torch.arange(len(self.test), device=self.device)
        if fault := faulty_inputs(extents(self.test, rows, modalities), len(rows)):
            raise DataError(f"test split: {fault}")

    def _network(self, arrays: Arrays) -> MultiModalNetwork:
        modalities = modalities_of(arrays)
        if modalities not in self.networks:
            network = MultiModalNetwork(self.spec, modalities).to(self.device)
            self.networks[modalities] = network.compute(self.precision, compiled=self.compiled)
        return self.networks[modalities].restart(arrays)

    def _features(self, network: MultiModalNetwork) -> dict[str, Tensor]:
        chunks = [
            network(self.test.batch(index, network.modalities)).features
            for index in torch.arange(len(self.test)).split(self.batch_size)
        ]
        return {m: torch.cat([c[m] for c in chunks]) for m in network.modalities}

    def _means(
        self,
        modality: str,
        z: Tensor,
        labels: Tensor,
        prototypes: Mapping[str, Prototypes] | None,
    ) -> ClassMeans | None:
        if prototypes is None:
            return class_means(z, labels, self.spec.num_classes)
        known = prototypes.get(modality)
        return ClassMeans.from_message(known, self.device) if known else None


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).double().mean())
