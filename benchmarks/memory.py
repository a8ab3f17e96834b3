"""Processes and all that they started: their memory, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def family(root: int) -> set[int]:
    """Return the ids of a process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
            except OSError:
                continue
    found, grown = {root}, True
    while grown:
        more = {p for p, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def tree_memory(root: int) -> float:
    """Proportional set size of a process and all below it, GiB: shared pages count once."""
    total = 0
    for pid in family(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(text.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):
            continue
    return total / 2**20


def end_tree(root: int) -> None:
    """Kill a process and all below it."""
    for pid in family(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
