"""A control: BMSFed's split between multi- and uni-modal clients, but clients at random."""

from __future__ import annotations

from collections.abc import Sequence

from .bmsfed import BMSFed
from .messages import Assignment, ClientInfo


class RandomModality(BMSFed):
    """Draw at random as many multi- and uni-modal clients as BMSFed would select.

    Answers whether it matters *which* client trains alone, beyond how many do. The split comes
    from BMSFed's own selection each round, on this run's signatures and ratios; then uni-modal
    clients are drawn uniformly from those that hold the weak modality, and multi-modal ones from
    the rest that hold another one. Costs and travels the same as BMSFed.

    Takes the parameters of :class:`BMSFed`. A control that the paper lacks.
    """

    private = "measuring"

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw clients for BMSFed's split; nobody is told to train what it lacks."""
        wanted = super().configure_fit(server_round, clients)
        if not wanted:
            return []
        weak = str(wanted[0].reasons["weak"])
        alone = sum(a.reasons["role"] == "uni" for a in wanted)
        known = self.measured(clients)
        order = self.draw("control", server_round).permutation(len(known))
        shuffled = [known[i] for i in order]
        uni = [c for c in shuffled if weak in c.modalities][:alone]
        # Who holds nothing but the weak modality trains alone, or not at all.
        others = [c for c in shuffled if c not in uni and set(c.modalities) != {weak}]
        multi = others[: len(wanted) - len(uni)]
        drawn = [("uni", c, (weak,)) for c in uni] + [("multi", c, c.modalities) for c in multi]
        return [
            Assignment(
                client.client_id,
                modalities,
                {
                    "role": role,
                    "ratio": self.ratio(client.client_id, weak),
                    "weak": weak,
                    "threshold": self.alone_above(),
                },
            )
            for role, client, modalities in drawn
        ]
