"""PmcmFL: what is missing is filled by prototypes, in training and at test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Unpack

import numpy as np

from .aggregation import aggregate_parts, sample_counts
from .base import StrategyOptions
from .fedavg import FedAvg
from .messages import Arrays, Assignment, Kind, Orders, Prototypes, Update

#: Beginning of the names of the head's columns, one block per modality.
_COLUMNS = "head.weight."


class PmcmFL(FedAvg):
    """FedAvg's random clients, who fill the features that they lack by global prototypes.

    In training a missing z_m is c_m,y, the global prototype of the sample's own class (Eq. 15 of
    BMSFed), to which no gradient goes; zero before there is one. So a client that lacks m is sent
    W_m, its columns of the head, trains them through the prototypes and sends them back: W_m is
    averaged over all that trained it, by all their samples. At test nobody knows the class, so
    class c is judged as if it were the true one::

        logit_c += W_m,c . c_m,c        for every missing m: a constant per class

    Where nothing is missing, this is FedAvg. Pitfall: what is filled in tells the label, so that
    on such samples the loss can fall by W_m alone and starve the encoders that are there; the
    uni-modal losses (``uni_weight``) go through these alone.

    Prototypes travel both ways, and the server keeps each client's.

    Takes the parameters of :class:`ModalityStrategy`, but for ``share_prototypes``.

    Source: https://github.com/Noirebao/Multimodal_Federated; its contrastive terms, of which two
    weigh nothing, are left out, and its rule at test is not published: ours stands above.
    """

    needs_linear_head: ClassVar[bool] = True

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        **options: Unpack[StrategyOptions],
    ) -> None:
        super().__init__(clients_per_round, share_prototypes=True, **options)

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Tell the prototypes of all modalities: any may be missing, be it in some samples."""
        told = super().orders(server_round, assignment, kind)
        return replace(told, prototypes=self._known() if kind == "train" else {})

    def model_for(self, assignment: Assignment) -> Arrays:
        """Return what the client trains: its own parts and the columns that prototypes go through.

        Before there are prototypes of a modality, its columns are no matter of who lacks it.
        """
        return super().model_for(assignment) | self._filled(assignment.modalities)

    def expected_arrays(self, modalities: Sequence[str]) -> Arrays:
        """Ask for the columns that were sent besides, too."""
        return super().expected_arrays(modalities) | self._filled(modalities)

    def aggregate(self, updates: Sequence[Update]) -> Arrays:
        """Average encoders by the samples that have the modality, the head by all samples."""
        return aggregate_parts(
            self.state.arrays, updates, self.head_columns, _weigh, self.aggregation
        )

    def absent_logits(self) -> Arrays:
        """Return ``W_m,c . c_m,c`` (K,) by modality; 0 of a class without a prototype."""
        constants = {}
        for modality, known in self._known().items():
            columns = self.state.arrays[_COLUMNS + modality]
            products = (columns * known.means).sum(axis=1)
            constants[modality] = np.where(known.counts > 0, products, 0).astype(columns.dtype)
        return constants

    def _known(self) -> dict[str, Prototypes]:
        """Global prototypes in the model's order: a loaded state has another, and sums show it."""
        _, known = self.shared()
        return {m: known[m] for m in self.state.modalities if m in known}

    def _filled(self, modalities: Sequence[str]) -> Arrays:
        """Columns of the modalities that are not among these, and have prototypes."""
        missing = (m for m in self._known() if m not in modalities)
        return {(name := _COLUMNS + m): self.state.arrays[name] for m in missing}


def _weigh(name: str, trainers: Sequence[Update]) -> Sequence[float]:
    """What is filled in trains the head's columns as well."""
    if name.startswith("head."):
        return [float(u.num_samples) for u in trainers]
    return sample_counts(name, trainers)
