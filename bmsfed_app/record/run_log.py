"""``run.log``: everything that a run printed, and what Flower's logger said meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bmsfed_app.record.files import cannot_write

NAME = "run.log"

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class _Handler(logging.FileHandler):
    """A file of lines; that one cannot be written is no reason to end a run, or to print more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""


class RunLog:
    """A run folder's log; each start of the run appends to it.

    Parameters
    ----------
    folder : Path
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME
        self._lines = logging.Logger("bmsfed")  # of this run alone
        self._lines.addHandler(logging.NullHandler())
        self._open = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write lines, and what Flower's logger says, to the file; within itself, do no more.

        Raises
        ------
        RunFolderError
            If the file cannot be opened.
        """
        if self._open:
            yield
            return
        try:
            handler = _Handler(self.file, encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.file, error) from None
        handler.setFormatter(logging.Formatter(_FORMAT))
        handler.setLevel(logging.INFO)
        loggers = self._lines, logging.getLogger("flwr")
        for logger in loggers:
            logger.addHandler(handler)
        self._open = True
        try:
            yield
        finally:
            self._open = False
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()

    def note(self, line: str) -> None:
        """Write a line that is shown elsewhere."""
        self._lines.info("%s", line)
