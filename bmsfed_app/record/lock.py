"""One writer at a time: the lock on a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bmsfed_app.record.files import RunFolderError, cannot_write

#: The file that is locked; it says who locked it last, and stays.
NAME = "run.lock"


class RunInUseError(RunFolderError):
    """Somebody else writes a run folder."""


class RunLock:
    """Held by the process that writes a run folder; it may take it several times over.

    The operating system holds it (``flock``) and gives it up when the process ends, however it
    ends: one that was killed leaves no lock behind. On a network file system this is as good as
    its locks are: NFS from version 4 on and Lustre mounted with ``flock`` keep out other machines
    too, a mount with ``nolock`` or ``localflock`` those of the same machine alone. Where there are
    no locks at all, filelock takes the file's existence for one, with a warning; a killed run's
    ``run.lock`` has then to be deleted by hand.

    Parameters
    ----------
    folder : Path
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / NAME
        # Recording runs in a thread of its own: the lock is the process's, not a thread's.
        self._lock = FileLock(str(self.file), timeout=0, thread_local=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock.

        Raises
        ------
        RunInUseError
            If somebody else holds it.
        RunFolderError
            If there is no writing in the folder.
        """
        said = ""
        with suppress(OSError):  # before: an older filelock empties the file in trying
            said = self.file.read_text(encoding="utf-8").strip()
        try:
            self._lock.acquire()
        except Timeout:
            raise RunInUseError(
                f"'{self.folder}' is being written by another run ({said or 'it did not say who'}):"
                " wait until it has ended, or stop it"
            ) from None
        except OSError as error:
            raise cannot_write(self.file, error) from None
        try:
            with suppress(OSError):  # who it is helps others alone
                self.file.write_text(_who(), encoding="utf-8")
            yield
        finally:
            self._lock.release()


def _who() -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
