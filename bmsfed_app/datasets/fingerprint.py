"""In which state a data folder is: the samples that it lists, and the files they are decoded from.

A file counts as unchanged while its size and time are. One whose time alone is another (a copy, a
checkout) is read, and counts as unchanged if its bytes are.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmsfed_app.datasets.prepared import Sample, Scan

#: (bytes, time of the last change in ns); (-1, 0) for a file that is not there.
Stamp = tuple[int, int]
_ABSENT: Stamp = (-1, 0)


@dataclass(frozen=True)
class FolderState:
    """What a data folder lists, and its files.

    Attributes
    ----------
    listing : str
        Digest of the samples: names, splits, labels, clients, values; and of those left out.
    counts : dict
        Samples listed, by split.
    files : dict
        Stamps of the files that samples are decoded from, by their path below the folder.
    """

    listing: str
    counts: dict[str, int]
    files: dict[str, Stamp]

    def mark(self) -> str:
        """Return a digest of all of it."""
        return digest([self.listing, sorted(self.files.items())])


def look(scan: Scan, data_dir: Path) -> FolderState:
    """Return the state of a data folder from a checked scan of it; no file is opened."""
    found = hashlib.sha256()
    for s in scan.samples:
        values = {m: _plain(v, data_dir) for m, v in s.values.items()}
        found.update(repr((s.id, s.split, s.label, s.client, s.key, values)).encode())
    for one in scan.bad:
        found.update(repr((one.sample, one.split, one.cause)).encode())
    splits = [s.split for s in scan.samples] + [one.split for one in scan.bad]
    counts = {split: splits.count(split) for split in sorted(set(splits))}
    return FolderState(found.hexdigest(), counts, _stamps(scan.samples, data_dir))


def contents(names: Iterable[str], data_dir: Path, workers: int) -> dict[str, str]:
    """Return a digest of the bytes of files, by their path below the folder."""
    names = list(names)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda name: _content(data_dir / name), names)
        return dict(zip(names, found, strict=True))


def digest(values: Any) -> str:
    """Return a digest of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def files_of(value: Any) -> Iterator[str]:
    """Yield the files that a sample's value names."""
    if isinstance(value, Path) or (isinstance(value, str) and os.path.isabs(value)):
        yield os.fspath(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from files_of(item)


def _plain(value: Any, data_dir: Path) -> Any:
    """Return a value that prints alike wherever the folder lies."""
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return (array.dtype.str, array.shape, zlib.crc32(array.data))
    if isinstance(value, Path | str):
        return _below(os.fspath(value), data_dir)
    if isinstance(value, list | tuple):
        return [_plain(item, data_dir) for item in value]
    return repr(value)


def _below(path: str, data_dir: Path) -> str:
    return path.removeprefix(f"{data_dir}{os.sep}")


def _stamps(samples: Iterable[Sample], data_dir: Path) -> dict[str, Stamp]:
    paths = {p for s in samples for value in s.values.values() for p in files_of(value)}
    return {_below(p, data_dir): at for path in paths for p, at in _stamped(path)}


def _stamped(path: str) -> Iterator[tuple[str, Stamp]]:
    """Yield a file's stamp, or those of all files in a folder."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a text that happens to begin like a path
        yield path, _ABSENT
        return
    if stat.S_ISDIR(found.st_mode):
        for folder, _, files in os.walk(path):
            for file in files:
                yield from _stamped(os.path.join(folder, file))
    else:
        yield path, (found.st_size, found.st_mtime_ns)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except (OSError, ValueError):
        return ""


# --- the files of a preparation -----------------------------------------------------------------

#: (bytes, time, digest of the bytes) by path.
Files = Mapping[str, tuple[int, int, str]]


def write_files(file: Path, stamps: Mapping[str, Stamp], digests: Mapping[str, str]) -> None:
    """Note the files that a preparation was made from; replaced whole."""
    rows = {name: (*stamp, digests[name]) for name, stamp in sorted(stamps.items())}
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(rows), encoding="utf-8")
    temporary.replace(file)


def read_files(file: Path) -> Files:
    """Read what :func:`write_files` wrote.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {name: (int(size), int(time), str(of)) for name, (size, time, of) in rows.items()}


def changed_files(
    known: Files, now: Mapping[str, Stamp], data_dir: Path, workers: int
) -> tuple[list[str], bool]:
    """Compare files with what is known of them.

    Returns
    -------
    changed : list of str
        Those that are others than before, or are gone, or are new.
    touched : bool
        Whether of others the time alone has changed.
    """
    differing = [name for name in known.keys() | now.keys() if _stamp(known, name) != now.get(name)]
    alike = [n for n in differing if n in known and n in now and known[n][0] == now[n][0] >= 0]
    read = contents(alike, data_dir, workers)
    touched = {name for name in alike if read[name] == known[name][2]}
    return sorted(set(differing) - touched), bool(touched)


def _stamp(known: Files, name: str) -> Stamp | None:
    return known[name][:2] if name in known else None
