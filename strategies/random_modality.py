"""A control: BMSFed's split between multi- and uni-modal clients, but clients at random."""

from __future__ import annotations

from collections.abc import Sequence

from .bmsfed import BMSFed
from .protocol import Assignment, ClientInfo
from .randomness import generator


class RandomModality(BMSFed):
    """Draw at random as many multi- and uni-modal clients as BMSFed would select.

    Answers whether it matters *which* client trains alone, beyond how many do. The split comes
    from BMSFed's own selection each round, on this run's signatures and ratios; then uni-modal
    clients are drawn uniformly from those that hold the weak modality, and multi-modal ones from
    the rest that hold another one. Costs and travels the same as BMSFed.

    Takes the parameters of :class:`BMSFed`. A control that the paper lacks.
    """

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw clients for BMSFed's split; nobody is told to train what it lacks."""
        wanted = super().configure_fit(server_round, clients)
        weak = self._weak
        if weak is None:
            return wanted
        alone = sum(p["role"] == "uni" for p in self.picks)
        known = self.measured(clients)
        order = generator(self.seed, "control", server_round).permutation(len(known))
        drawn = [known[i] for i in order]
        uni = [c for c in drawn if weak in c.modalities][:alone]
        # Who holds nothing but the weak modality trains alone, or not at all.
        others = [c for c in drawn if c not in uni and set(c.modalities) != {weak}]
        multi = others[: len(wanted) - len(uni)]
        assignments = [Assignment(c.client_id, (weak,)) for c in uni]
        assignments += [Assignment(c.client_id, c.modalities) for c in multi]
        self.picks = [
            {
                "client": a.client_id,
                "role": "uni" if i < len(uni) else "multi",
                "modalities": list(a.modalities),
                "ratio": self.ratio(a.client_id, weak),
                "weak": weak,
                "threshold": self.threshold,
            }
            for i, a in enumerate(assignments)
        ]
        return assignments
