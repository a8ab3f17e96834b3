"""FedAvg: uniformly drawn clients train all they hold (McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from .base import ModalityStrategy
from .decisions import whole
from .messages import Assignment, ClientInfo


class FedAvg(ModalityStrategy):
    """Random clients, all their modalities, averages weighted by sample counts.

    Takes the parameters of :class:`ModalityStrategy`.

    Source: McMahan et al. 2017, https://arxiv.org/abs/1602.05629, Algorithm 1.
    """

    private = "averages"

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Draw clients uniformly without replacement; the draw depends on (seed, round) only.

        With differential privacy the draw is :meth:`strategies.privacy.ClientPrivacy.draw`'s,
        unless clients' measurements are kept, which tell who was drawn.
        """
        ordered = sorted(clients, key=lambda c: c.client_id)
        n = self.resolve_clients_per_round(len(ordered))
        if self.privacy is not None and not self.privacy.measuring:
            return [whole(c) for c in self.privacy.draw(ordered, n)]
        rng = self.draw("select", server_round)
        return [whole(ordered[i]) for i in rng.permutation(len(ordered))[:n]]
