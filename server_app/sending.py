"""The run folder, sent to who started the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from bmsfed_app.record.sent import Packer
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, RoundReport

#: Flower takes its log away every 0.2 s and, at a run's end, waits 3 s for what is left: long
#: lines that come one by one are never more than it can take.
_PAUSE, _LONG = 0.25, 2**15


class SendFolder(Callback):
    """Writes the run folder into the run's log, as lines for ``bmsfed run --on``.

    Rows go as they are written, all else at the end, by :meth:`finish`; the checkpoints stay.

    Parameters
    ----------
    folder : RunFolder
    write : callable
        Takes one line.
    """

    def __init__(self, folder: RunFolder, write: Callable[[str], None]) -> None:
        self.packer, self.write = Packer(folder.path), write

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Name the folder, and send what is there."""
        self.write(self.packer.first())
        self._send(self.packer.rest())

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Send the round's rows."""
        self._send(self.packer.rows())

    def finish(self) -> None:
        """Send what the run has written besides, when it has written all."""
        self._send(self.packer.rest())

    def _send(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)
            if len(line) > _LONG:
                time.sleep(_PAUSE)
