"""When a run has failed: an error, or too many answers that had to be left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from bmsfed_app.record.files import read_rows
from bmsfed_app.record.rows import ClientRow
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, FederationError, Paused, RoundReport
from strategies.federation.client_tests import TESTS
from strategies.federation.transport import Interrupted
from strategies.federation.waiting import LATE

#: Answers after which a run that is no good ends before its last round.
_ENOUGH = 10
_LISTED = 3  # reasons that the message names


class _Lost(NamedTuple):
    """One answer that was left out."""

    round: int
    client: str
    status: str


@dataclass
class _Answers:
    """How many answers clients were asked for, and which of them were left out."""

    asked: int = 0
    lost: list[_Lost] = field(default_factory=list)

    def add(self, server_round: int, client: str, phase: str, status: str) -> None:
        """Count one more; one that came after enough others is no fault, nor is one of a test."""
        if status == LATE or phase in TESTS:
            return
        self.asked += 1
        if status != "ok":
            self.lost.append(_Lost(server_round, client, status))


class FailureLimit(Callback):
    """Ends a run as failed if more than ``max_failures`` of the clients' answers were left out.

    Answers to training and to measuring count, those of no answer too; not those that came after
    enough others, nor those of a round's tries that came to nothing, which patience bounds, nor
    clients' tests, by which nothing is trained. Looked at over the whole run at its end, and after
    every round over what was asked since the run was started or resumed, once these are ten.

    Parameters
    ----------
    folder : RunFolder
        Has the limit, and the rounds before a resumed run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.limit = folder, folder.config.max_failures
        self.num_rounds = folder.config.rounds
        self.before, self.now = _Answers(), _Answers()

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Read what was answered before; refuse to end a failed run a second time as complete."""
        self.num_rounds = num_rounds
        rows = read_rows(self.folder.history)[0] if self.folder.history.exists() else []
        for row in rows:
            if isinstance(row, ClientRow):
                self.before.add(row.round, row.client, row.phase, row.status)
        if strategy.state.round >= num_rounds:
            self._check(self.before)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Count the round's answers.

        Raises
        ------
        FederationError
            If too many have been left out.
        """
        for client in report.clients:
            self.now.add(report.round, client.client_id, client.phase, client.status)
        if report.round >= self.num_rounds or report.ended:
            self._check(self.before, self.now)
        elif self.now.asked >= _ENOUGH:
            self._check(self.now)

    def _check(self, *answers: _Answers) -> None:
        asked = sum(a.asked for a in answers)
        lost = [one for a in answers for one in a.lost]
        if len(lost) > self.limit * asked:
            raise FederationError(
                f"{len(lost)} of {asked} answers were left out, more than max_failures "
                f"({self.limit:g}) allows: mend what they say, or raise it{_most_often(lost)}"
            )


def is_failure(error: BaseException | None) -> bool:
    """Whether a run that ended with an error failed, rather than was stopped or paused."""
    return isinstance(error, Exception) and not isinstance(error, Interrupted | Paused)


def ending(error: BaseException | None, resume: str, ended: str = "") -> str:
    """Return the last line that a run prints: how it ended, and why, or how it goes on.

    Parameters
    ----------
    error : BaseException or None
        What ended it early.
    resume : str
        The command that goes on with it.
    ended : str, optional
        Why it was complete before its last round.
    """
    if error is None:
        return f"complete: {ended}" if ended else "complete"
    if not is_failure(error) and not isinstance(error, Paused):
        return f"stopped; go on with: {resume}"
    texts = str(error) or type(error).__name__, *getattr(error, "__notes__", ())
    told = "; ".join(line.strip() for text in texts for line in text.splitlines())
    if isinstance(error, Paused):
        return f"PAUSED: {told}; go on with: {resume}"
    return f"FAILED: {told}"


def _most_often(lost: Iterable[_Lost]) -> str:
    """List the most frequent reasons, each with its first example; numbers make no difference."""
    alike: dict[str, _Lost] = {}
    counts: Counter[str] = Counter()
    for answer in lost:
        kind = re.sub(r"\d+", "", answer.status)
        alike.setdefault(kind, answer)
        counts[kind] += 1
    return "".join(
        f"\n  {count} times, first from {alike[kind].client} in round {alike[kind].round}: "
        f"{alike[kind].status}"
        for kind, count in counts.most_common(_LISTED)
    )
