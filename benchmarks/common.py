"""What the benchmarks share: the machine they ran on, and made-up digits where no data is given."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from bmsfed_app.datasets.base import Split
from bmsfed_app.datasets.colored import ColorSettings, pair_info, pair_split
from server_app.run_folder import commit, versions


def made_up_digits(n: int) -> Split:
    """A colored/gray split of n random pictures of MNIST's shape."""
    rng = torch.Generator().manual_seed(0)
    digits = torch.randint(256, (n, 28, 28), generator=rng, dtype=torch.uint8)
    labels = torch.arange(n) % 10
    info = pair_info("made-up")
    return pair_split(info, digits, labels, "train", seed=0, settings=ColorSettings())


def write(out: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, with the machine and versions beside them."""
    if out is not None:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "commit": commit()}
        out.write_text(json.dumps({**figures, **machine, "versions": versions()}, indent=1) + "\n")


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    """A run folder's history rows of one kind."""
    lines = (run / "history.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
