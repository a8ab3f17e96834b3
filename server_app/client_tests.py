"""How well clients are served on samples of their own: from what they count themselves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from strategies import Callback, ClientReport, Decisions, Metric, RoundReport
from strategies.federation.client_tests import GLOBAL, OWN
from strategies.messages import RIGHT, TESTED

_FIGURE = "accuracy on own samples"

#: What is told of the clients' accuracies, and how readers call it.
_SPREAD = {
    "": "clients' own tests",
    "_weighted": "clients' own tests, by samples",
    "_std": "clients' own tests, standard deviation",
    "_lowest": "clients' own tests, lowest tenth",
}


def _metrics(name: str, of: str, about: str) -> tuple[Metric, ...]:
    column = "tests" if name == "accuracy_clients" else ""
    return tuple(
        Metric(
            name + suffix,
            title + of,
            "%",
            figure=_FIGURE if suffix != "_std" else f"{_FIGURE}, standard deviation",
            column="" if suffix else column,
            about=f"{title.capitalize()}{of}: {about}",
            lower_is_better=suffix == "_std",
        )
        for suffix, title in _SPREAD.items()
    )


class ClientTestsCallback(Callback):
    """Accuracy on the samples that each client holds out (``holdout``), over all that were asked.

    Of the model that each client would be sent: the global one of most methods, with its own head
    of ``private-head`` and ``fedpac``, its own altogether of ``local``. Where these differ,
    ``accuracy_clients_global`` is that of the global model on the same samples.

    For each of the two: the mean over clients, the mean weighted by their samples, the standard
    deviation over clients and the mean of the lowest tenth (rounded up) of them. By what clients
    hold, ``accuracy_clients_by_held`` is recorded: the mean over those that hold the same
    modalities, such as "audio+video". A client that holds nothing out, or whose answer was left
    out, does not count.
    """

    metrics: tuple[Metric, ...] = (
        *_metrics("accuracy_clients", "", "what each would be sent, on its samples held out."),
        *_metrics(
            "accuracy_clients_global",
            ", global model",
            "the global model on these samples, where clients have models of their own.",
        ),
    )

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Add the round's, if clients have tested."""
        for phase, name in ((OWN, "accuracy_clients"), (GLOBAL, "accuracy_clients_global")):
            found = _counted(report, phase)
            if phase == GLOBAL and found:  # the others have no model but the global one
                found = [*_without(_counted(report, OWN), found), *found]
            if found:
                report.metrics |= _spread(name, found)
        if own := _counted(report, OWN):
            report.metrics["accuracy_clients_by_held"] = _by_held(own)


def _counted(report: RoundReport, phase: str) -> list[ClientReport]:
    """What clients have tested in a phase, of those with any sample to test."""
    entries = (c for c in report.clients if c.phase == phase and c.status == "ok")
    return [c for c in entries if c.metrics[TESTED] > 0]


def _without(entries: list[ClientReport], others: list[ClientReport]) -> list[ClientReport]:
    known = {c.client_id for c in others}
    return [c for c in entries if c.client_id not in known]


def _accuracies(entries: list[ClientReport]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracies (n,) and samples (n,), by client."""
    tested = np.array([c.metrics[TESTED] for c in entries])
    return np.array([c.metrics[RIGHT] for c in entries]) / tested, tested


def _spread(name: str, entries: list[ClientReport]) -> dict[str, float]:
    values, samples = _accuracies(entries)
    lowest = np.sort(values)[: math.ceil(len(values) / 10)]
    return {
        name: float(values.mean()),
        f"{name}_weighted": float(np.average(values, weights=samples)),
        f"{name}_std": float(values.std()),
        f"{name}_lowest": float(lowest.mean()),
    }


def _by_held(entries: list[ClientReport]) -> dict[str, float]:
    groups: dict[str, list[ClientReport]] = {}
    for entry in entries:
        groups.setdefault("+".join(entry.modalities), []).append(entry)
    return {held: float(_accuracies(same)[0].mean()) for held, same in sorted(groups.items())}
