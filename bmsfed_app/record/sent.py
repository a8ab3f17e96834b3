"""A run folder in lines of text: how it travels in a run's log to who started it.

A line is a mark and a JSON object: first ``{"name", "path"}`` of the folder, then of its files
pieces, ``{"file", "at", "data"}`` (deflated, in base64), and after a file's last piece
``{"file", "size", "sha256"}``. A file that is not sent is ``{"file", "size", "stays": true}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

MARK = "bmsfed-folder "

#: Bytes of a file in one line, and of a file that is not sent because it is longer.
PIECE, LONGEST = 2**18, 2**26


class Packer:
    """Turns what is new in a folder into lines.

    Parameters
    ----------
    folder : Path
        A run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: dict[str, tuple[int, str]] = {}  # size and checksum by file

    def first(self) -> str:
        """Return the line that names the folder."""
        return _line(name=self.folder.name, path=str(self.folder.absolute()))

    def rows(self) -> Iterator[str]:
        """Yield lines of the files that grow with every round."""
        for file in sorted(self.folder.glob("*.jsonl")):
            yield from self._changes(file)

    def rest(self) -> Iterator[str]:
        """Yield lines of all files, but for checkpoints and what is in use or half written."""
        for file in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = file.relative_to(self.folder).as_posix()
            if name.startswith("checkpoint") or file.suffix in {".tmp", ".lock"}:
                continue
            if file.stat().st_size > LONGEST:
                yield _line(file=name, size=file.stat().st_size, stays=True)
            else:
                yield from self._changes(file)

    def _changes(self, file: Path) -> Iterator[str]:
        name, data = file.relative_to(self.folder).as_posix(), file.read_bytes()
        size, checksum = self._told.get(name, (0, ""))
        if (len(data), found := hashlib.sha256(data).hexdigest()) == (size, checksum):
            return
        grown = size and hashlib.sha256(data[:size]).hexdigest() == checksum
        for at in range(size if grown else 0, max(len(data), 1), PIECE):
            piece = zlib.compress(data[at : at + PIECE])
            yield _line(file=name, at=at, data=base64.b64encode(piece).decode())
        yield _line(file=name, size=len(data), sha256=found)
        self._told[name] = len(data), found


class Unpacker:
    """Writes the folder that lines are of.

    Parameters
    ----------
    folder : Path, optional
        Where to; without it, ``parent / name`` as the sender names it, made new.
    parent : Path
        Where folders are made.

    Attributes
    ----------
    folder : Path or None
        The folder, once it is known.
    origin : str
        Where it lies on the sender's machine.
    stays : dict of str to int
        Sizes of the files that were not sent.
    faults : dict of str to str
        What is wrong, by file.
    """

    def __init__(self, folder: Path | None, parent: Path) -> None:
        self.folder, self.parent = folder, parent
        self.origin = ""
        self.stays: dict[str, int] = {}
        self.faults: dict[str, str] = {}

    def take(self, line: str) -> str | None:
        """Take a line of a log; return what of it is to be shown, None if nothing is.

        Threads write into one log: what another one wrote may stand before or behind.
        """
        before, mark, text = line.partition(MARK)
        if not mark:
            return line
        behind = ""
        try:
            told, end = json.JSONDecoder().raw_decode(text)
            behind = text[end:]
            self._take(told)
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            self.faults.setdefault("a line", f"cannot be read ({error})")
        return (before + behind).strip() or None

    def _take(self, told: dict[str, Any]) -> None:
        if "name" in told:
            self.origin = str(told["path"])
            if self.folder is None:
                self.folder = _new(self.parent, PurePosixPath(told["name"]).name)
            return
        if self.folder is None:
            raise ValueError("a file before its folder")
        name = str(told["file"])
        file = _inside(self.folder, name)
        if told.get("stays"):
            self.stays[name] = int(told["size"])
        elif "data" in told:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("r+b" if file.exists() else "w+b") as stream:
                stream.seek(int(told["at"]))
                stream.write(zlib.decompress(base64.b64decode(told["data"])))
                stream.truncate()
        else:
            whole = hashlib.sha256(file.read_bytes() if file.exists() else b"").hexdigest()
            self.faults.pop(name, None)
            if whole != told["sha256"]:
                self.faults[name] = "differs from the server's"


def _line(**values: Any) -> str:
    return MARK + json.dumps(values)


def _new(parent: Path, name: str) -> Path:
    folder, n = parent / name, 1
    while folder.exists():
        n += 1
        folder = parent / f"{name}-{n}"
    folder.mkdir(parents=True)
    return folder


def _inside(folder: Path, name: str) -> Path:
    """Return a file of the folder; a name cannot lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError(f"'{name}' is no file of the folder")
    return folder / path
