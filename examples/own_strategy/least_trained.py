"""A selection strategy of one's own: whoever and whatever was trained least comes next."""

from collections.abc import Sequence

import numpy as np

from strategies import Arrays, Assignment, ClientInfo, ModalityStrategy, Update


class LeastTrained(ModalityStrategy):
    """The n clients that trained least; each trains the one modality that it trained least."""

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Equally often: by client id, and by the client's order of modalities."""
        n = self.resolve_clients_per_round(len(clients))
        chosen = sorted(clients, key=lambda c: (self._counts(c).sum(), c.client_id))[:n]
        weakest = {c: c.modalities[int(self._counts(c).argmin())] for c in chosen}
        return [Assignment(c.client_id, (m,)) for c, m in weakest.items()]

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Count what was trained; ``state.memory`` is part of every checkpoint."""
        for update in updates:
            client = self.state.clients[update.client_id]
            counts = self._counts(client)
            counts[[client.modalities.index(m) for m in update.modalities]] += 1
            self.state.memory[update.client_id] = {"trained": counts}
        return super().aggregate_fit(server_round, updates)

    def _counts(self, client: ClientInfo) -> np.ndarray:
        nothing = np.zeros(len(client.modalities), np.int64)
        return self.state.memory.get(client.client_id, {}).get("trained", nothing).copy()
