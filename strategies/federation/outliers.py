"""Updates that stand out: held against the round's norms before they are merged, and noted."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from ..callbacks import ClientReport, RoundReport
from ..changes import is_float, is_statistic, product, unit_of
from ..decisions import Decisions
from ..messages import Arrays, Update

log = logging.getLogger("flwr")

#: Norms among which one can be told to stand out.
_LEAST = 3

#: Rounds whose typical norms are kept.
_KEPT = 5


class Inspection:
    """One round's updates, as changes of what each client was sent.

    The norm of a change is looked at by unit: each encoder, the whole head, and the running
    statistics of an encoder's batch norms by themselves, as their scale is the data's. Of three
    trainers and more, the typical norm is the median of those above 0; of one or two, the median
    of the typical norms of up to five rounds before, once there are three, and until then the norm
    of the weights themselves that were sent: no honest round changes an encoder by ten times that.

    A norm beyond ``outlier_factor`` times the typical one is scaled down to it. It is not left
    out: an honest client's update that is out of scale still says in which direction its data
    pulls, and a dishonest one's can do no more than an honest one's. What has no direction any
    more, because its norm overflows, is left out, as is an answer with a negative variance.

    Parameters
    ----------
    decisions : Decisions
        The method; its state is the one before the round is merged.
    received : mapping
        What each client was sent, by client id.
    updates : sequence of Update
        Valid answers.
    """

    def __init__(
        self, decisions: Decisions, received: Mapping[str, Arrays], updates: Sequence[Update]
    ) -> None:
        self.decisions, self.received, self.updates = decisions, received, list(updates)
        self.squares = {u.client_id: self._squares(u) for u in updates}
        self.before = decisions.state.arrays
        counted = [u for u in updates if u.num_samples > 0]
        self.typical = {
            unit: self._typical(unit, counted)
            for unit in sorted({unit for u in counted for unit in self.squares[u.client_id]})
        }

    def guarded(self, report: RoundReport, *, warn: bool) -> list[Update]:
        """Return the updates that may be merged, and note in the report what stood out.

        Parameters
        ----------
        report : RoundReport
            Has an entry for each update.
        warn : bool
            Whether to say it in Flower's log as well.
        """
        entries = _entries(report)
        kept = []
        for update in self.updates:
            entry = entries[update.client_id]
            if fault := self._fault(update):
                entry.status = fault
            else:
                entry.update_norm = _norm(self.squares[update.client_id])
                update, entry.note = self._scaled(update)
                kept.append(update)
            if warn and (fault or entry.note):
                what = f"is left out: {fault}" if fault else f"stands out: {entry.note}"
                log.warning("client '%s' %s", update.client_id, what)
        self.updates = kept
        return kept

    def complete(self, report: RoundReport) -> None:
        """Note in the report how the updates compare with what the round made of them.

        To be called once they are merged; keeps the round's typical norms in the state.
        """
        entries, state = _entries(report), self.decisions.state
        total = sum(max(u.num_samples, 0) for u in self.updates)
        cosines = self._cosines() if self.decisions.merges else {}
        for update in self.updates:
            entry = entries[update.client_id]
            if self.decisions.merges and total:
                entry.weight = max(update.num_samples, 0) / total
            entry.update_cosine = cosines.get(update.client_id)
        for unit, (typical, norms) in self.typical.items():
            if norms:
                if typical is not None:  # what was scaled down counts as it was merged
                    norms = [typical if n > self._limit(typical) else n for n in norms]
                state.norms[unit] = [*state.norms.get(unit, []), median(norms)][-_KEPT:]

    def _squares(self, update: Update) -> dict[str, float]:
        """Squared norms of a client's changes by unit."""
        sent = self.received[update.client_id]
        squares: dict[str, float] = {}
        for name, array in update.arrays.items():
            if name in sent and is_float(array):
                unit = unit_of(name)
                squares[unit] = squares.get(unit, 0.0) + product(array, sent[name])
        return squares

    def _typical(self, unit: str, counted: Iterable[Update]) -> tuple[float | None, list[float]]:
        """Return what a unit's norm is held against, if anything, and the round's norms."""
        squares = [self.squares[u.client_id].get(unit, 0.0) for u in counted]
        norms = [math.sqrt(s) for s in squares if 0 < s < math.inf]
        known = norms if len(norms) >= _LEAST else self.decisions.state.norms.get(unit, [])
        return (median(known) if len(known) >= _LEAST else None), norms

    def _limit(self, typical: float) -> float:
        factor = self.decisions.outlier_factor
        return factor * typical if factor and self.decisions.merges else math.inf

    def _fault(self, update: Update) -> str | None:
        """Say why an update cannot be merged, or None."""
        for name, array in update.arrays.items():
            if name.endswith("running_var") and array.size and array.min() < 0:
                return f"array '{name}' holds a negative variance"
        for unit, square in self.squares[update.client_id].items():
            if not math.isfinite(square):
                return f"the change of '{unit}' is too large to have a norm"
        return None

    def _scaled(self, update: Update) -> tuple[Update, str]:
        """Scale down what stands out, and say so."""
        shares, notes = {}, []
        for unit, square in sorted(self.squares[update.client_id].items()):
            typical = self._measure(unit, update)
            if typical is not None and (norm := math.sqrt(square)) > self._limit(typical):
                shares[unit] = typical / norm
                self.squares[update.client_id][unit] = typical**2
                notes.append(f"'{unit}' by {norm / typical:.3g} times the usual")
        if not shares:
            return update, ""
        sent = self.received[update.client_id]
        arrays = {
            name: _between(sent[name], array, shares[unit_of(name)])
            if name in sent and is_float(array) and unit_of(name) in shares
            else array
            for name, array in update.arrays.items()
        }
        note = f"its update changes {' and '.join(notes)}; scaled down to that"
        return replace(update, arrays=arrays), note

    def _measure(self, unit: str, update: Update) -> float | None:
        """Return what a unit's norm is held against: in the last resort, an encoder's weights."""
        typical = self.typical[unit][0] if unit in self.typical else None
        if typical is not None or unit.endswith(" statistics") or unit == "head":
            return typical
        sent = self.received[update.client_id]
        own = sum(
            product(sent[name], np.zeros_like(sent[name]))
            for name, array in update.arrays.items()
            if name in sent and is_float(array) and unit_of(name) == unit
        )
        return math.sqrt(own) or None

    def _cosines(self) -> dict[str, float]:
        """Cosine of each client's change with the global model's, over the weights it trained."""
        inner = {u.client_id: 0.0 for u in self.updates}
        ours = dict(inner)
        for name, after in self.decisions.state.arrays.items():
            trainers = [u for u in self.updates if name in u.arrays]
            if not trainers or not is_float(after) or is_statistic(name):
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                moved = np.subtract(after, self.before[name])
            square = product(after, self.before[name])
            for update in trainers:
                key, new = update.client_id, update.arrays[name]
                old = self.received[key][name]
                inner[key] += product(new, old, moved)
                ours[key] += square
        found = {}
        for key, value in inner.items():
            scale = _norm(self.squares[key]) * math.sqrt(ours[key])
            if 0 < scale < math.inf and math.isfinite(value):
                found[key] = value / scale
        return found


def _between(old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    """Go only a share of the way from old to new."""
    change = np.subtract(new, old, dtype=np.float64)
    return np.asarray(old + share * change).astype(old.dtype)


def _norm(squares: Mapping[str, float]) -> float:
    """Return the norm of a whole change without statistics."""
    return math.sqrt(sum(s for unit, s in squares.items() if not unit.endswith(" statistics")))


def _entries(report: RoundReport) -> dict[str, ClientReport]:
    return {c.client_id: c for c in report.clients if c.phase == "train"}
