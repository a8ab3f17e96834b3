"""Where data and runs are kept when nobody says: a folder per user, whatever the directory."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path


def home() -> Path:
    """Return ``$BMSFED_HOME``, or ``~/.bmsfed``."""
    return Path(os.environ.get("BMSFED_HOME") or Path.home() / ".bmsfed").expanduser()


def default_data_dir(dataset: str) -> Path:
    """Return where a data set is looked for by default."""
    return home() / "data" / dataset


def data_dir_here(given: str) -> Path | None:
    """Return the data's folder on this machine: ``$BMSFED_DATA_DIR``, else the one given.

    Machines of a cluster need not keep data where the server has it. None means the default one.
    """
    folder = os.environ.get("BMSFED_DATA_DIR") or given
    return Path(folder).expanduser() if folder else None


def default_run_dir(dataset: str, method: str, seed: int) -> Path:
    """Return a fresh folder for a run, named by time, method, data set and seed."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = home() / "runs" / f"{stamp}-{method}-{dataset}-s{seed}"
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path
