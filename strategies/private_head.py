"""Private heads: encoders are shared, every client keeps a head of its own (BLOSSOM)."""

from __future__ import annotations

from collections.abc import Sequence

from .fedavg import FedAvg
from .messages import Arrays, Assignment, Update, copied


class PrivateHead(FedAvg):
    """FedAvg's random clients, of whom each goes on with its own head.

    Encoders are averaged over their trainers, by samples. Client k receives them with the head
    that it sent last; one that has none yet receives the global head, which is the mean, by
    samples, of the heads that came in last. The global head is also what is tested; client k's own
    model is :meth:`model_for` of all that it holds: the global encoders and its own head. With one
    modality or several, a head is all arrays ``head.…``: the columns of the modalities that the
    client trained, and what all share.

    Clients keep nothing between messages, so their heads live in the server's state: the bytes of
    one head for each client, which travel both ways as a global head would.

    Takes the parameters of :class:`ModalityStrategy`.

    Source: variant "PHF" (private head and fusion, which one linear head is both) of
    https://github.com/DaSH-Lab-CSIS/blossom; its code still sends and averages private blocks, and
    keeps them in the processes that clients run in.
    """

    def model_for(self, assignment: Assignment) -> Arrays:
        """Return the global encoders, and the client's own head or the global one at first."""
        own = self.state.memory.get(assignment.client_id, {})
        return {n: own.get(n, value) for n, value in super().model_for(assignment).items()}

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        """Keep each client's head, and average encoders and the global head by samples."""
        for update in updates:
            head = {n: value for n, value in update.arrays.items() if n.startswith("head.")}
            self.state.memory.setdefault(update.client_id, {}).update(copied(head))
        return super().aggregate_fit(server_round, updates)
