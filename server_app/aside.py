"""Where a run folder keeps what is cut off of it: nothing is ever erased."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from bmsfed_app.record.files import cannot_write


class Aside:
    """The folder ``cut/<time>`` of a run, made when something is first put there.

    Parameters
    ----------
    run : Path
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path: Path | None = None

    def folder(self) -> Path:
        """Return the folder, which is there from now on.

        Raises
        ------
        RunFolderError
            If it cannot be made.
        """
        if self.path is None:
            base = self.run / "cut" / datetime.now().strftime("%Y%m%d-%H%M%S")
            path, n = base, 1
            while path.exists():
                n += 1
                path = base.with_name(f"{base.name}-{n}")
            try:
                path.mkdir(parents=True)
            except OSError as error:
                raise cannot_write(path, error) from None
            self.path = path
        return self.path

    def take(self, file: Path, name: str = "") -> None:
        """Move a file here, if it is there; under another name, if one is given."""
        if file.exists():
            try:
                file.replace(self.folder() / (name or file.name))
            except OSError as error:
                raise cannot_write(file, error) from None

    def copy(self, file: Path, name: str = "") -> None:
        """Keep a file here as it is now, if it is there; whoever replaces it leaves this one be."""
        if file.exists():
            link(file, self.folder() / (name or file.name))


def link(file: Path, other: Path) -> None:
    """Give a file another name besides, in the place of what has it; a copy where links cannot be.

    Raises
    ------
    RunFolderError
        If it cannot be written; ``other`` is then as before.
    """
    temporary = other.with_name(other.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:  # file systems without hard links
            shutil.copyfile(file, temporary)
        temporary.replace(other)
        temporary.unlink(missing_ok=True)  # where both were names of one file already
    except OSError as error:
        raise cannot_write(other, error) from None
