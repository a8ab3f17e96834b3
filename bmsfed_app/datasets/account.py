"""What a run sees of its data: how many samples, which are left out and why, in which state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bmsfed_app.datasets.prepared import SPLITS, LeftOut

_EXAMPLES = 3


@dataclass
class Account:
    """What is used of a data set and what is not.

    Attributes
    ----------
    cache : Path or None
        Where the prepared data lies; None for data sets that are read as they are.
    counts : dict
        Samples used, by split; empty where nobody knows before loading.
    bad : list of LeftOut
        Samples left out.
    notes : list of str
        What a user should know.
    fingerprint : str
        Names the state of the data, 16 hexadecimal digits: of the samples listed, the bytes of
        their files and the data set's settings, wherever the folder lies and however old the
        files are. Empty where it is not known.
    anew : str
        Why the data was prepared anew, if an older preparation was out of date.
    lacking : dict
        By split, how many of the samples used lack a modality, by those that any lacks.
    """

    cache: Path | None
    counts: dict[str, int]
    bad: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""
    anew: str = ""
    lacking: dict[str, dict[str, int]] = field(default_factory=dict)

    def causes(self, split: str) -> dict[str, list[LeftOut]]:
        """Return what a split lacks, by cause; split "" is what is listed for neither."""
        found: dict[str, list[LeftOut]] = {}
        for one in self.bad:
            if one.split == split:
                found.setdefault(one.cause, []).append(one)
        return found

    def listed(self, split: str) -> int:
        """Count the samples that a split has by the data set's lists, used or not."""
        return self.counts.get(split, 0) + sum(one.split == split for one in self.bad)

    def lines(self) -> Iterator[str]:
        """Say it all: a line per split, then the notes."""
        if self.anew:
            yield f"prepared anew: {self.anew}"
        for split in SPLITS:
            if split in self.counts:
                used = f"{self.listed(split):,} listed, {self.counts[split]:,} used"
                lacks = [f", {n:,} lack {m}" for m, n in self.lacking.get(split, {}).items()]
                yield f"{split}: {used}{''.join(lacks)}{_left_out(self.causes(split))}"
        if nowhere := self.causes(""):
            yield f"of no known split{_left_out(nowhere)}"
        for note in self.notes:
            yield f"note: {note}"


def some(items: list[str], number: int = _EXAMPLES, between: str = ", ") -> str:
    """Join the first items; say how many more there are."""
    more = f"{between}and {len(items) - number} more" if len(items) > number else ""
    return between.join(items[:number]) + more


def _left_out(causes: dict[str, list[LeftOut]]) -> str:
    """Say how many are left out for each cause, with examples."""
    if not causes:
        return ""
    parts = []
    for cause, members in causes.items():
        # By a rule of the data set, the name says it all; otherwise the reason has file and line.
        names = [one.sample if one.by_rule else one.reason for one in members]
        parts.append(f"{len(members):,} x {cause} ({some(names, between='; ')})")
    return f"; left out: {', '.join(parts)}"
