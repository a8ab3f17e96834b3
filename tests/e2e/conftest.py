"""Real processes for a test, all stopped after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, ROOT, Processes, bmsfed, free_port, wait_until

__all__ = ["PATIENCE", "ROOT", "SMALL", "Processes", "bmsfed", "free_port", "wait_until"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.stop_all()


#: A federation small enough for a test: a tenth of the digits, one epoch.
SMALL = ["cg-digits", "--clients", "4", "--per-round", "3"]
SMALL += ["--set", "data_fraction=0.1", "--set", "local_epochs=1"]
