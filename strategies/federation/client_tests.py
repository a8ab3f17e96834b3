"""What clients find on the samples that they hold out for tests: counts, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..callbacks import RoundReport
from ..decisions import Decisions
from ..messages import Arrays, Assignment, ClientInfo, Orders, Task, select_parts
from ..state import ServerState
from .merging import restore
from .transport import Interrupted
from .wire import Encoder

if TYPE_CHECKING:
    from .loop import FederatedRun

#: Phases of a report's clients: each one's own model, and the global one where that is another.
OWN, GLOBAL = "test", "test-global"
TESTS = (OWN, GLOBAL)

#: Key of the orders' ``method_state``: what modalities that are missing add to the logits.
ABSENT = "absent_logits"


def have_clients_test(federation: FederatedRun, report: RoundReport, before: ServerState) -> None:
    """Have all clients that are there test what they would be sent, on all that they hold.

    That is the global model of most methods, and of those with models of the clients' own each
    client's. Where it is another, the global one is tested on the same samples. What they count
    stands in the report's clients, of the phases "test" and "test-global"; its traffic is not the
    round's.

    Parameters
    ----------
    federation : FederatedRun
        Between two rounds.
    report : RoundReport
        Of the round that has ended; those who said nothing, or nothing of use, are noted.
    before : ServerState
        A snapshot from before the round.

    Raises
    ------
    Interrupted
        If the federation was asked to stop; the method's state is then as before the round.
    """
    try:
        _have_all_test(federation, report)
    except Interrupted:
        restore(federation.decisions, before)
        raise


def _have_all_test(federation: FederatedRun, report: RoundReport) -> None:
    decisions = federation.decisions
    busy = federation.newcomers.being_measured()
    clients = [c for c in federation.available() if federation.fleet.nodes[c.client_id] not in busy]
    own = {c.client_id: _own_model(decisions, c) for c in clients}
    _ask(federation, report, clients, own, OWN)
    if decisions.merges:
        shared = {c.client_id: select_parts(decisions.state.arrays, c.modalities) for c in clients}
        others = [c for c in clients if not _same(own[c.client_id], shared[c.client_id])]
        if others:
            _ask(federation, report, others, shared, GLOBAL)


def _own_model(decisions: Decisions, client: ClientInfo) -> Arrays:
    told = Assignment(client.client_id, client.modalities)
    return select_parts(decisions.model_for(told), client.modalities)


def _same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        value is other[name] or np.array_equal(value, other[name]) for name, value in one.items()
    )


def _ask(
    federation: FederatedRun,
    report: RoundReport,
    clients: list[ClientInfo],
    models: Mapping[str, Arrays],
    phase: str,
) -> None:
    decisions = federation.decisions
    absent = {m: [float(x) for x in v] for m, v in decisions.absent_logits().items()}
    state = {ABSENT: absent} if absent else {}
    sent, encode = [], Encoder()
    for client in clients:
        who, held = client.client_id, client.modalities
        orders = Orders("test", held, report.round, who, method_state=state)
        sent.append(federation.packed(Assignment(who, held), Task(orders, models[who]), encode))
    outgoing = {s.node_id: s.message for s in sent}
    answers = federation.exchange(report.round, "test", outgoing)
    before = len(report.clients)
    federation.judge(sent, answers, report)
    for entry in report.clients[before:]:
        entry.phase = phase
