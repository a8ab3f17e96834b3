"""Valid answers become the method's state, or leave no trace in it.

What a method makes of answers is the method's code, which may stumble over one of them in a way
that no check foresaw. The others' work is then merged without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from ..callbacks import RoundReport
from ..decisions import Decisions
from ..messages import Update
from ..state import ServerState
from .errors import FederationError

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: Takes updates over into a method's state.
Merge = Callable[[Sequence[Update]], object]


def merge(
    decisions: Decisions, take_over: Merge, updates: Sequence[Update], report: RoundReport
) -> list[Update]:
    """Let a method take over updates; those that it cannot take are left out by name.

    Parameters
    ----------
    decisions : Decisions
        The method.
    take_over : callable
        Its way to merge updates.
    updates : sequence of Update
        Valid ones, by client id.
    report : RoundReport
        Where those that are left out are noted.

    Returns
    -------
    list of Update
        Those that were merged; where it is empty, the state is as before.

    Raises
    ------
    Exception
        Of the method, if it is not to do with single answers; the state is then as before.
    FederationError
        If what comes out holds NaN or infinity, which none of the answers did.
    """
    before = decisions.state.snapshot()
    kept = list(updates)
    try:
        _merged(decisions, take_over, kept)
        return kept
    except Exception as error:
        restore(decisions, before)
        reasons = {u.client_id: _alone(decisions, take_over, u, before) for u in kept}
        bad = {client: reason for client, reason in reasons.items() if reason}
        if not bad:
            raise error
    for entry in report.clients:
        if entry.status == "ok" and entry.client_id in bad:
            entry.status = f"the method cannot use its answer: {bad[entry.client_id]}"
            log.warning("client '%s' is left out: %s", entry.client_id, entry.status)
    kept = [u for u in kept if u.client_id not in bad]
    try:
        if kept:
            _merged(decisions, take_over, kept)
    except Exception:
        restore(decisions, before)
        raise
    return kept


def restore(decisions: Decisions, before: ServerState) -> None:
    """Put a method's state back to a snapshot; who else holds the state, or its clients, sees it.

    Parameters
    ----------
    decisions : Decisions
    before : ServerState
        Of :meth:`~strategies.state.ServerState.snapshot`; not changed by what follows.
    """
    state, again = decisions.state, before.snapshot()
    for mine, then in ((state.clients, again.clients), (state.bindings, again.bindings)):
        mine.clear()  # the fleet has them as well
        mine.update(then)  # type: ignore[arg-type]
    for one in fields(ServerState):
        if one.name not in {"clients", "bindings"}:
            setattr(state, one.name, getattr(again, one.name))
    decisions.forget_shared()


def _merged(decisions: Decisions, take_over: Merge, updates: Sequence[Update]) -> None:
    old = dict(decisions.state.arrays)
    with np.errstate(over="ignore"):  # what overflows is found, and named, below
        take_over(updates)
    for name, value in decisions.state.arrays.items():
        floats = value is not old.get(name) and np.issubdtype(value.dtype, np.floating)
        if floats and not np.isfinite(value).all():
            raise FederationError(
                f"the average of '{name}' holds NaN or infinity, which no answer did: lower "
                "the learning rate, or clip gradients; the last complete round is kept"
            )


def _alone(
    decisions: Decisions, take_over: Merge, update: Update, before: ServerState
) -> str | None:
    """Say why a method cannot take over one update by itself, or None; the state stays."""
    try:
        _merged(decisions, take_over, [update])
    except Exception as error:
        return str(error) or repr(error)
    finally:
        restore(decisions, before)
    return None
