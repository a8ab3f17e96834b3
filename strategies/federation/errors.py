"""What ends a federation."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..callbacks import RoundReport


class FederationError(RuntimeError):
    """The federation cannot go on; the message says why and what to do."""


class Paused(FederationError):
    """The federation waits for clients no longer; it can be resumed from its last round."""


class RoundFailed(FederationError):
    """One try of a round came to nothing; the method's state is as before it.

    Parameters
    ----------
    reason : str
        What went wrong, without the clients' own reasons.
    report : RoundReport
        What there is of the round.
    lost : collection of str
        Clients that did not answer at all, and so may be there again later.
    """

    def __init__(self, reason: str, report: RoundReport, lost: Collection[str] = ()) -> None:
        super().__init__(f"round {report.round}: {reason}{listed(report.failures)}")
        self.reason, self.report, self.lost = reason, report, lost


def listed(failures: Mapping[str, str]) -> str:
    """Return a line for every client that failed."""
    return "".join(f"\n  {client}: {reason}" for client, reason in sorted(failures.items()))
