"""How well each client is served by what it would be sent: its own head or model, or the global."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server_app.callbacks import CALLBACKS, Watched
from server_app.looks import Look
from strategies import Assignment, ClientInfo, Decisions, Metric, RoundReport
from strategies.protocol import select_parts


@CALLBACKS.register("personal")
class Personal(Look):
    """Accuracy of every client's own model on its own mix of classes, every ``every`` rounds.

    A client's model is what it would be sent to train all that it holds: the global model of most
    methods, with its own head of ``private-head`` and ``fedpac``, its own altogether of ``local``.
    It is tested with the modalities that the client holds, on the test split weighed by the
    client's shares of the classes (a client that did not say them: as the split is)::

        accuracy_k = sum_c p_k(c) accuracy_kc / sum_c p_k(c)      over the classes c of the split

    The round's value is the mean over all known clients, weighted by their samples.

    Parameters
    ----------
    watched : Watched
    every : int, default 1
        Rounds between two looks; the last round always counts. Each look is a pass over the test
        split for each set of modalities held, and the head once for each client.
    """

    metrics: tuple[Metric, ...] = (
        Metric(
            "accuracy_personal",
            "own models",
            "%",
            figure="accuracy of own models",
            column="own",
            about="Clients' own models on their own mix of classes of the test split; mean by "
            "samples.",
        ),
    )

    def __init__(self, watched: Watched, *, every: int = 1) -> None:
        super().__init__(watched.evaluator, every)

    def look(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's."""
        # Those that hold the same stand together: their encoders run once.
        clients = sorted(strategy.state.clients.values(), key=lambda c: (c.modalities, c.client_id))
        models = (
            select_parts(strategy.model_for(Assignment(c.client_id, c.modalities)), c.modalities)
            for c in clients
        )
        hits = self.evaluator.hits_by_class(models, strategy.absent_logits())
        totals = np.bincount(self.evaluator.test.labels.cpu(), minlength=hits.shape[1])
        own = [_on_own_classes(c, h, totals) for c, h in zip(clients, hits, strict=True)]
        weights = [c.num_samples for c in clients]
        report.metrics["accuracy_personal"] = float(np.average(own, weights=weights))


def _on_own_classes(
    client: ClientInfo, hits: NDArray[np.int64], totals: NDArray[np.int64]
) -> float:
    """Accuracy on the classes (K,) of the test split, weighed as the client has them."""
    there = totals > 0
    shares = np.zeros(len(totals))
    shares[: len(client.class_counts)] = client.class_counts
    if not shares[there].any():
        shares = totals.astype(np.float64)
    return float(np.average(hits[there] / totals[there], weights=shares[there]))
