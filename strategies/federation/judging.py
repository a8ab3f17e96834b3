"""Which of a phase's answers count: each is read and checked, and a bad one is left out by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..callbacks import ClientReport, RoundReport
from ..decisions import Decisions
from ..messages import Assignment, Task, Update
from .dialects import Dialect
from .transport import Answer, Outgoing
from .validation import find_fault, shapes_of

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


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
    warns : bool
        Whether it also logs who is left out; our own app has callbacks for it.
    """

    def __init__(self, decisions: Decisions, *, warns: bool) -> None:
        self.decisions, self.warns = decisions, warns

    def __call__(
        self, sent: Sequence[Sent], answers: Mapping[int, Answer], report: RoundReport
    ) -> list[Update]:
        """Collect the valid updates, and note every client in the report."""
        shapes = self._known_shapes()
        updates = []
        for message in sorted(sent, key=lambda s: s.assignment.client_id):
            answer = answers.get(message.node_id) or Answer(None, "no answer")
            phase = "train" if message.task.orders.kind == "train" else "probe"
            assignment = message.assignment
            entry = ClientReport(assignment.client_id, phase, assignment.modalities)
            entry.bytes_down, entry.bytes_up = answer.bytes_down, answer.bytes_up
            entry.seconds = answer.seconds
            report.clients.append(entry)
            read = self._read(message, answer, shapes)
            if isinstance(read, str):
                entry.status = read
                if self.warns:
                    log.warning("client '%s' is left out: %s", entry.client_id, read)
                continue
            entry.num_samples, entry.metrics = read.num_samples, read.metrics
            entry.ratios = read.ratios
            shapes |= shapes_of(read.prototypes, read.signatures)
            updates.append(read)
        return updates

    def _known_shapes(self) -> dict[str, tuple[int, ...]]:
        state, shapes = self.decisions.state, dict[str, tuple[int, ...]]()
        for client_id in state.clients:
            shapes |= shapes_of(
                state.prototypes.get(client_id, {}), state.signatures.get(client_id, {})
            )
        return shapes

    def _read(self, sent: Sent, answer: Answer, shapes: dict[str, tuple[int, ...]]) -> Update | str:
        """Read and check one answer; of a bad one, return the reason."""
        task, dialect = sent.task, sent.dialect
        if answer.content is None:
            return answer.error
        try:
            update = dialect.read(task, answer.content)
        except Exception as error:  # whatever a foreign node sends must not end the run
            return dialect.in_words(error)
        kind = task.orders.kind
        expected = self.decisions.expected_arrays(task.orders.modalities) if kind == "train" else {}
        if fault := find_fault(update, dialect.owed(task, expected), shapes=shapes):
            return dialect.in_words(fault)
        dialect.complete(update, task, expected, self.decisions)
        if fault := self.decisions.check_update(update, kind):
            return fault
        return update
