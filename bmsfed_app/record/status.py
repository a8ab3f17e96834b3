"""How a run stands at this moment: ``status.json``."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from bmsfed_app.record.files import RunFolderError, read_json
from bmsfed_app.record.rows import Row

NAME = "status.json"

State = Literal["waiting", "running", "paused", "stopped", "failed", "complete"]
_GOING_ON = ("waiting", "running")


class ClientStatus(Row):
    """One client, over the whole run so far.

    Attributes
    ----------
    node : str
        Flower's id of the node that it was last connected through, in this start of the run; empty
        if none.
    connected : bool
        Whether it was there at the last look.
    modalities, num_samples
        What it holds.
    last_round : int or None
        The last round in which its answer was used.
    ratio : dict
        Its latest imbalance ratios (Eq. 17) by modality.
    failures : int
        Answers that were left out, those that never came too.
    last_failure : str
        Why the latest of them was.
    bytes_down, bytes_up : int
        All its messages of measuring and training, in bytes.
    seconds : float
        From sending its latest task to its answer.
    """

    node: str = ""
    connected: bool = False
    modalities: list[str] = Field(default_factory=list)
    num_samples: int = 0
    last_round: int | None = None
    ratio: dict[str, float] = Field(default_factory=dict)
    failures: int = 0
    last_failure: str = ""
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


class RunStatus(Row):
    """``status.json``.

    Attributes
    ----------
    state : str
        waiting (for clients), running, paused, stopped (on request), failed or complete.
    why : str
        Why it waits, paused or failed.
    round, rounds : int
        The round under way, or the last complete one where none is; how many there are to be.
    process, host : int, str
        Who writes this.
    updated : str
        When, in UTC.
    clients : dict
        By client id.
    refused : dict
        Why nodes that are connected do not take part, by node id.
    """

    state: State
    why: str = ""
    round: int = 0
    rounds: int = 0
    process: int = 0
    host: str = ""
    updated: str = ""
    clients: dict[str, ClientStatus] = Field(default_factory=dict)
    refused: dict[str, str] = Field(default_factory=dict)

    @property
    def going_on(self) -> bool:
        """Whether the run waits or runs, as far as this machine can tell."""
        return self.state in _GOING_ON and not self.killed

    @property
    def killed(self) -> bool:
        """Whether the run ended without saying so; known only on the machine that it ran on."""
        if self.state not in _GOING_ON or self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # somebody else's
            pass
        return False


def read_status(folder: Path) -> RunStatus:
    """Read the status of a run.

    Raises
    ------
    RunFolderError
        If the folder holds none.
    """
    file = folder / NAME
    if (folder / "config.yaml").is_file() and not file.is_file():
        raise RunFolderError(
            f"'{folder}' has no {NAME}: it has not begun, or is of an older version"
        )
    return read_json(file, RunStatus)


def now() -> str:
    """Return the time as ``updated`` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
