"""What a check found: a line each, with cause and remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "FAILED"]


@dataclass(frozen=True)
class Finding:
    """What one look at a machine found.

    Attributes
    ----------
    level : {"ok", "warning", "FAILED"}
        A run cannot be expected to work with anything that failed.
    what : str
        What was looked at, in a word or two.
    found : str
        What is so, and, unless all is well, what it leads to and what to do.
    """

    level: Level
    what: str
    found: str

    def line(self) -> str:
        """Return the finding as one line."""
        return f"{self.level:<8} {self.what:<20} {' '.join(self.found.split())}"


def ok(what: str, found: str) -> Finding:
    """Note that something is as it must be."""
    return Finding("ok", what, found)


def warning(what: str, found: str) -> Finding:
    """Note what may become a fault."""
    return Finding("warning", what, found)


def failed(what: str, found: str) -> Finding:
    """Note a fault."""
    return Finding("FAILED", what, found)


def show(findings: Sequence[Finding], write: Callable[[str], None] = print) -> int:
    """Write every finding and a closing line; return the exit code, 1 if anything failed."""
    for finding in findings:
        write(finding.line())
    bad, odd = (sum(f.level == level for f in findings) for level in ("FAILED", "warning"))
    write(f"{len(findings)} checks: {bad} failed, {odd} with a warning")
    return 1 if bad else 0
