"""BMSFed that holds strong modalities back, where the weak one deserves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from .bmsfed import BMSFed, BMSFedOptions
from .expected import Shape
from .messages import Arrays, Assignment, Kind, Orders, Update
from .random_modality import RandomModality
from .ranges import Parameter
from .ratios import MAX_RATIO, weakest

TRUST_ABOVE = Parameter(0.8, ge=0, le=1)

#: Before a modality, in an answer: samples (2,) that a client holds out of its training and that
#: have the modality, and those of them that the received model gets right through it alone.
COUNTS = "counts."

#: What the counts of a round weigh in the next one.
DECAY = 0.5

#: In the state's memory: logarithms of the global ratios of all rounds, summed; counts, decayed.
_BEHIND, _COUNTED = "behind.", COUNTS


class BMSFedPlus(BMSFed):
    """BMSFed by one weak modality for the whole run, and only while that one can be trusted.

    Ratios near 1 change hands by chance, and so would the modality that clients favour. Here the
    globally weak one is the modality that has been behind over the run so far, of the ratios of
    Eq. 18 after each round::

        weak = argmax_m sum_t log rho_m(t)

    Clients hold a share of their samples out of training, and count how many of them the received
    model gets right through each modality's own columns. With H these accuracies, counts of earlier
    rounds weighing half as much with every round, the weak modality is *trusted* while
    ``H_weak >= trust_above * max_m H_m``: it is behind in training, not in what it can say of
    samples that it has not seen. Before anybody has counted, it is not. While it is not, clients
    are told so, and nobody trains it alone. Clients' objective ``hold_back`` makes use of it.

    Kept: in ``state.memory[""]`` a number and two counts by modality. Traffic: BMSFed's, and 16
    bytes by modality up of clients that hold samples out.

    Parameters
    ----------
    clients_per_round : int or float, optional
        See :class:`ModalityStrategy`.
    trust_above : float, default 0.8
        Share of the best modality's held-out accuracy that a trusted one has at least, 0 to 1. 0
        trusts it always.
    **options
        Those of :class:`BMSFed`.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Source: ours. Weights by what held-out samples say: Wang et al., CVPR 2020.
    """

    def __init__(
        self,
        clients_per_round: int | float | None = None,
        *,
        trust_above: float = TRUST_ABOVE.default,
        **options: Unpack[BMSFedOptions],
    ) -> None:
        super().__init__(clients_per_round, **options)
        TRUST_ABOVE.check("trust_above", trust_above)
        self.trust_above = trust_above

    def weak_modality(self) -> str | None:
        """Return the modality that has been behind over the run, or by this round's ratios."""
        behind = self._remembered(_BEHIND)
        return weakest({m: float(v) for m, v in behind.items()}) or super().weak_modality()

    def trusts(self, modality: str | None) -> bool:
        """Say whether a modality does about as well as the best one on samples held out."""
        if self.trust_above == 0:
            return True
        counts = self._remembered(_COUNTED).items()
        accuracy = {m: right / held_out for m, (held_out, right) in counts if held_out}
        if modality not in accuracy:
            return False
        return bool(accuracy[modality] >= self.trust_above * max(accuracy.values()))

    def alone_above(self) -> float:
        """Return the ratio above which a client trains the weak modality alone."""
        return self.threshold if self.trusts(self.weak_modality()) else MAX_RATIO

    def orders(self, server_round: int, assignment: Assignment, kind: Kind) -> Orders:
        """Say whether the weak modality is trusted."""
        orders = super().orders(server_round, assignment, kind)
        return replace(orders, method_state={"trusted": self.trusts(orders.weak)})

    def expected_measurements(self, orders: Orders) -> Mapping[str, Shape]:
        """Take two counts of every modality trained."""
        known = dict(super().expected_measurements(orders) or {})
        if orders.kind == "train":
            known |= {COUNTS + m: (2,) for m in orders.modalities}
        return known

    def check_update(self, update: Update, kind: Kind) -> str | None:
        """Refuse counts that no samples can give; who counts nothing has no say."""
        for name, found in update.measurements.items():
            if not name.startswith(COUNTS):
                continue
            held_out, right = found.tolist()
            if not 0 <= right <= held_out <= update.num_samples:
                return f"'{name}' are no counts of its {update.num_samples} samples"
        return super().check_update(update, kind)

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Average as BMSFed does, and remember counts and ratios."""
        arrays = super().aggregate_fit(server_round, updates)
        memory = self.state.memory.setdefault("", {})
        for m, ratio in self.global_ratios().items():
            memory[_BEHIND + m] = memory.get(_BEHIND + m, np.zeros(())) + np.log(ratio)
        for m in self.state.modalities:
            found = [u.measurements[COUNTS + m] for u in updates if COUNTS + m in u.measurements]
            if found:
                past = memory.get(_COUNTED + m, np.zeros(2))
                memory[_COUNTED + m] = DECAY * past + np.sum(found, axis=0, dtype=np.float64)
        return arrays

    def _remembered(self, what: str) -> dict[str, Any]:
        memory = self.state.memory.get("", {})
        return {m: memory[what + m] for m in self.state.modalities if what + m in memory}


class RandomBMSFedPlus(RandomModality, BMSFedPlus):
    """:class:`BMSFedPlus` with as many uni-modal clients, all of them drawn at random.

    Takes the parameters of :class:`BMSFedPlus`. A control.
    """
