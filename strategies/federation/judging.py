"""Which of a phase's answers count: each is read and checked, and a bad one is left out by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..callbacks import ClientReport, RoundReport
from ..decisions import Decisions
from ..messages import Arrays, Assignment, ClientInfo, Task, Update
from ..ratios import MOST_TIMES, largest_weight
from .dialects import Dialect
from .fleet import Fleet
from .strict import MOST_SAMPLES
from .transport import Answer, Outgoing
from .validation import (
    NOT_FINITE,
    count_fault,
    find_fault,
    shape_fault,
    shapes_by_vote,
    shapes_of,
)

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

_LONGEST_REASON = 1000
_PHASES = {"train": "train", "test": "test"}  # of all other kinds: "probe"


@dataclass(frozen=True)
class Sent:
    """One message that went to a client, and how its answer is to be read."""

    node_id: int
    assignment: Assignment
    task: Task
    dialect: Dialect
    message: Outgoing


class Judge:
    """Reads answers for a method, and notes in the report what became of each.

    Parameters
    ----------
    decisions : Decisions
        The method, whose state says what an answer must fit.
    fleet : Fleet
        Says whether an answer is of the client that the node is known as.
    warns : bool
        Whether it also logs who is left out; our own app has callbacks for it.
    """

    def __init__(self, decisions: Decisions, fleet: Fleet, *, warns: bool) -> None:
        self.decisions, self.fleet, self.warns = decisions, fleet, warns

    def __call__(
        self, sent: Sequence[Sent], answers: Mapping[int, Answer], report: RoundReport
    ) -> list[Update]:
        """Collect the valid updates, and note every client in the report.

        An answer that is left out has changed nothing.
        """
        ordered = sorted(sent, key=lambda s: s.assignment.client_id)
        read = [self._read(s, answers.get(s.node_id) or Answer(None, "no answer")) for s in ordered]
        shapes = shapes_by_vote(r for r in read if isinstance(r, Update)) | self._known_shapes()
        read = [
            self._completed(s, r, shapes) if isinstance(r, Update) else r
            for s, r in zip(ordered, read, strict=True)
        ]
        self._bound_samples(ordered, read)
        for message, found in zip(ordered, read, strict=True):
            self._note(message, found, answers.get(message.node_id), report)
        return [r for r in read if isinstance(r, Update)]

    def blame(self, report: RoundReport) -> str:
        """Say what is wrong with the model, where all that came is not finite; else nothing."""
        came = [c for c in report.clients if c.phase == "train" and c.bytes_up]
        if len(came) > 1 and all(NOT_FINITE in c.status for c in came):
            return (
                f": all {len(came)} answers hold NaN or infinity: the model that was sent, not the "
                "clients, is to blame: it diverged or was poisoned before; go on from an earlier "
                "round, or lower the learning rate"
            )
        return ""

    def _note(
        self, sent: Sent, found: Update | str, answer: Answer | None, report: RoundReport
    ) -> None:
        assignment = sent.assignment
        phase = _PHASES.get(sent.task.orders.kind, "probe")
        entry = ClientReport(assignment.client_id, phase, assignment.modalities)
        if answer is not None:
            entry.bytes_down, entry.bytes_up = answer.bytes_down, answer.bytes_up
            entry.seconds = answer.seconds
        report.clients.append(entry)
        if isinstance(found, str):
            entry.status = found
            self.fleet.doubt(sent.node_id)
            if self.warns:
                log.warning("client '%s' is left out: %s", entry.client_id, found)
            return
        entry.num_samples, entry.metrics = found.num_samples, found.metrics
        entry.ratios = found.ratios

    def _known_shapes(self) -> dict[str, tuple[int, ...]]:
        state, shapes = self.decisions.state, dict[str, tuple[int, ...]]()
        for client_id in state.clients:
            shapes |= shapes_of(
                state.prototypes.get(client_id, {}), state.signatures.get(client_id, {})
            )
        return shapes

    def _read(self, sent: Sent, answer: Answer) -> Update | str:
        """Read and check one answer; of a bad one, return the reason."""
        task, dialect = sent.task, sent.dialect
        if answer.content is None:
            return answer.error
        try:  # whatever a node sends must not end the run
            update = dialect.read(task, answer.content)
            client = sent.assignment.client_id
            if fault := self.fleet.contradiction(sent.node_id, client, update):
                return fault
            fault = find_fault(
                update,
                dialect.owed(task, self._arrays(task)),
                self.decisions.expected(task.orders),
                most_samples=self._most_samples(sent),
            )
        except Exception as error:
            return _short(dialect.in_words(error))
        return _short(dialect.in_words(fault)) if fault else update

    def _completed(
        self, sent: Sent, update: Update, shapes: Mapping[str, tuple[int, ...]]
    ) -> Update | str:
        """Add what the method expects, and let it look; of a bad answer, return the reason."""
        if fault := shape_fault(update, shapes):
            return sent.dialect.in_words(fault)
        try:
            sent.dialect.complete(update, sent.task, self._arrays(sent.task), self.decisions)
            kind = sent.task.orders.kind
            if kind == "test":  # no matter of the method
                fault = count_fault(update)
            else:
                fault = self.decisions.check_update(update, kind)
        except Exception as error:
            return _short(sent.dialect.in_words(error))
        return fault or update

    def _arrays(self, task: Task) -> Arrays:
        training = task.orders.kind == "train"
        return self.decisions.expected_arrays(task.orders.modalities) if training else {}

    def _most_samples(self, sent: Sent) -> int:
        """Samples that a client may answer for: those it enrolled with, where it said how many."""
        info = self.decisions.state.clients.get(sent.assignment.client_id)
        counts = info is not None and sent.dialect.counts_samples
        return info.num_samples if info is not None and counts else MOST_SAMPLES

    def _bound_samples(self, sent: Sequence[Sent], read: Sequence[Update | str]) -> None:
        """Bound what clients weigh, and remember the counts of those that say them only now.

        By :data:`MOST_TIMES` the (lower) median: of all that enrolled with their counts, or of the
        phase's answers for clients that did not.
        """
        clients = self.decisions.state.clients
        enrolled = largest_weight([c.num_samples for c in clients.values()])
        answered = sorted(r.num_samples for r in read if isinstance(r, Update))
        said_now = MOST_TIMES * max(answered[(len(answered) - 1) // 2], 1) if answered else 0
        for message, update in zip(sent, read, strict=True):
            if isinstance(update, str):
                continue
            counts = message.dialect.counts_samples
            most = enrolled if counts else said_now
            if update.num_samples > most:
                log.warning(
                    "client '%s' answers for %d samples, more than %d times the median: it counts "
                    "as %d",
                    *(update.client_id, update.num_samples, MOST_TIMES, most),
                )
                update.num_samples = int(most)
            info, training = clients.get(update.client_id), message.task.orders.kind != "loss"
            if not counts and info is not None and training and update.num_samples > 0:
                clients[update.client_id] = replace(info, num_samples=update.num_samples)


def warn_of_large(clients: Mapping[str, ClientInfo]) -> None:
    """Name the clients that enrolled with far more samples than most."""
    most = largest_weight([c.num_samples for c in clients.values()])
    for info in clients.values():
        if info.num_samples > most:
            log.warning(
                "client '%s' says it has %d samples, more than %d times the median: it counts as "
                "%d in averages; leave it out if it cannot have so many",
                *(info.client_id, info.num_samples, MOST_TIMES, most),
            )


def _short(reason: str) -> str:
    """One line of bounded length: what a client sent may be quoted in it."""
    text = "".join(c if c.isprintable() else " " for c in reason)
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"
