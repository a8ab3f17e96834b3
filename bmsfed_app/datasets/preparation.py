"""From a data folder to its cache: decoded once, and again when the folder is another.

Every start looks at the folder: the samples that it lists, and the size and time of their files
(:mod:`bmsfed_app.datasets.fingerprint`). What was prepared from other data is never used. Until it
is complete, a cache is made in ``<cache>.partial``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bmsfed_app.datasets.account import Account, some
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.checks import MAX_BAD, check_classes, check_share, list_folder
from bmsfed_app.datasets.decoding import decode_all, join
from bmsfed_app.datasets.fingerprint import (
    FolderState,
    changed_files,
    contents,
    digest,
    look,
    read_files,
    write_files,
)
from bmsfed_app.datasets.prepared import (
    FORMAT_VERSION,
    SPLITS,
    LeftOut,
    PreparedSource,
    Scan,
    read_index,
)
from bmsfed_app.datasets.ranges import check_ranges


def prepare(
    source: PreparedSource,
    data_dir: Path,
    settings: Any,
    *,
    workers: int = 0,
    max_bad: float = MAX_BAD,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Account:
    """Decode a data set into its cache, unless what is there is of the folder as it is now.

    A folder that is gone as a whole cannot be compared with its cache, which is then used; a note
    says so.

    Parameters
    ----------
    source : PreparedSource
    data_dir : Path
    settings
        The data set's, parsed.
    workers : int
        Threads; 0 takes one per core.
    max_bad : float
        Share of the listed samples that may be left out for faults, 0 to 1. The cache does not
        depend on it.
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    DataError
        If the folder does not hold the data set, too many samples are bad, a split stays empty, a
        class cannot be learnt, the disk is full, files change meanwhile, or another process is
        preparing the same.
    """
    cache = source.cache_dir(data_dir, settings)
    try:
        scan = list_folder(source, data_dir, settings)
    except (DataError, OSError):
        if data_dir.exists() or not (cache / "files.json").is_file():
            raise
        index, gone = read_index(cache), f"the data folder {data_dir} is gone: what was prepared"
        account = _read_account(
            cache, index, [*index["notes"], f"{gone} from it is used, unchecked"]
        )
    else:
        _check(source, scan, settings, max_bad)
        job = _Job(source, settings, data_dir, scan, look(scan, data_dir), cache, workers, max_bad)
        account = job.run(progress)
    total = sum(account.counts.values()) + len(account.bad)
    check_share(account.bad, total, max_bad, source.name)
    return account


def changes(source: PreparedSource, data_dir: Path, settings: Any) -> tuple[str, str]:
    """Compare a folder with what was prepared from it; nothing is made.

    Returns
    -------
    fingerprint : str
        Of what was prepared; empty if nothing was.
    why : str
        How the folder differs from it; empty if it does not, or cannot be compared.
    """
    cache = source.cache_dir(data_dir, settings)
    if not (cache / "files.json").is_file() or not data_dir.exists():
        return "", ""
    scan = list_folder(source, data_dir, settings)
    job = _Job(source, settings, data_dir, scan, look(scan, data_dir), cache, 0, 1.0)
    return str(read_index(cache)["data"]), job.up_to_date()[1]


def _check(source: PreparedSource, scan: Scan, settings: Any, max_bad: float) -> None:
    """Check what a folder lists, before anything is decoded."""
    check_share(scan.bad, len(scan.samples) + len(scan.bad), max_bad, source.name)
    counts = Counter((s.split, s.label) for s in scan.samples)
    classes = range(len(source.classes(settings)))
    check_classes(source, settings, {s: [counts[s, label] for label in classes] for s in SPLITS})


@dataclass(frozen=True)
class _Job:
    """A folder as it was found, and its cache; see :func:`prepare`."""

    source: PreparedSource
    settings: Any
    data_dir: Path
    scan: Scan
    state: FolderState
    cache: Path
    workers: int
    max_bad: float

    def run(self, progress: Callable[[int, int], None]) -> Account:
        """Return the account of the cache, made anew if it is out of date."""
        found, why = self.up_to_date()
        if found is not None:
            return found
        partial = self.cache.with_name(self.cache.name + ".partial")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            # Beside the folder, which goes while the lock is held: some systems keep an open file.
            with FileLock(self.cache.with_name(self.cache.name + ".lock"), blocking=False):
                found, why = self.up_to_date()
                return found or self.make(partial, why, progress)
        except Timeout:
            raise DataError(
                f"another process is preparing '{self.source.name}' from this folder: wait until "
                "it is done"
            ) from None
        except OSError as error:
            raise DataError(
                f"cannot write the cache {self.cache} ({error}): free the disk or set BMSFED_HOME "
                "to a folder that can be written, and prepare again; what was done is kept"
            ) from None

    def up_to_date(self) -> tuple[Account | None, str]:
        """Return the account of the cache if it is of the folder as it is, or why it is not."""
        if not (self.cache / "index.json").is_file():
            return None, ""
        try:
            index, known = read_index(self.cache), read_files(self.cache / "files.json")
            listing, before = index["listing"], index["listed"]
        except (DataError, OSError, ValueError, KeyError):
            return None, "its cache is damaged, or of another version of the app"
        if listing != self.state.listing:
            return None, _other_listing(before, self.state.counts)
        changed, touched = changed_files(known, self.state.files, self.data_dir, self.threads)
        if changed:
            return None, f"files have changed: {some(changed)}"
        if touched:
            with suppress(OSError):  # a cache that cannot be written to is compared again next time
                digests = {name: of for name, (_, _, of) in known.items()}
                write_files(self.cache / "files.json", self.state.files, digests)
        return _read_account(self.cache, index, self.scan.notes), ""

    def make(self, partial: Path, why: str, progress: Callable[[int, int], None]) -> Account:
        """Decode the samples and put them in the cache's place."""
        _start(partial, self.state.mark())
        kinds, samples = self.source.kinds(self.settings), self.scan.samples
        total = len(samples) + len(self.scan.bad)

        def _check(bad: list[LeftOut]) -> None:
            check_share(self.scan.bad + bad, total, self.max_bad, self.source.name)

        bad = decode_all(samples, kinds, partial, self.threads, _check, progress)
        joined = partial / "joined"
        classes = len(self.source.classes(self.settings))
        described = join(samples, kinds, partial, joined, classes)
        per_class = {split: of["per_class"] for split, of in described.items()}
        findings = check_ranges(kinds, joined)
        findings += check_classes(self.source, self.settings, per_class)
        digests = contents(self.state.files, self.data_dir, self.threads)
        if look(self.scan, self.data_dir) != self.state:
            raise DataError(
                f"files in {self.data_dir} changed while they were decoded: prepare again"
            )
        write_files(joined / "files.json", self.state.files, digests)
        index = {
            "format": FORMAT_VERSION,
            "data": self.fingerprint(digests, bad),
            "listing": self.state.listing,
            "listed": self.state.counts,
            "splits": described,
            "bad": self.scan.bad + bad,
            "notes": self.scan.notes,
            "findings": findings,
        }
        (joined / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        _replace(joined, self.cache)
        shutil.rmtree(partial)
        account = _read_account(self.cache, read_index(self.cache), self.scan.notes)
        account.anew = why
        return account

    @property
    def threads(self) -> int:
        """How many work."""
        return self.workers or os.cpu_count() or 1

    def fingerprint(self, digests: Mapping[str, str], bad: list[LeftOut]) -> str:
        """Name the data: what is listed, the bytes of the files, what could not be decoded."""
        known = [self.source.name, self.source.identity(self.settings), self.state.listing]
        return digest([*known, digests, sorted((b.split, b.sample) for b in bad)])[:16]


def _read_account(cache: Path, index: Mapping[str, Any], notes: list[str]) -> Account:
    """Return what an index says, with what the folder's scan noted."""
    counts = {split: of["count"] for split, of in index["splits"].items()}
    bad = [LeftOut(*b) for b in index["bad"]]
    lacking = {split: of.get("lacking", {}) for split, of in index["splits"].items()}
    notes = notes + index["findings"]
    return Account(cache, counts, bad, notes, index["data"], lacking=lacking)


def _other_listing(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Say how the samples listed differ from those of a cache."""
    numbers = [
        f"{before.get(split, 0)} {split} samples were listed, {now.get(split, 0)} are now"
        for split in SPLITS
        if before.get(split) != now.get(split)
    ]
    return "; ".join(numbers) or "the samples listed have other names, labels or values"


def _start(partial: Path, mark: str) -> None:
    """Throw away chunks of another state of the folder."""
    file = partial / "fingerprint"
    if file.is_file() and file.read_text() == mark:
        return
    for chunk in partial.glob("chunk-*"):
        chunk.unlink()
    file.write_text(mark)


def _replace(joined: Path, cache: Path) -> None:
    if cache.exists():
        shutil.rmtree(cache)
    os.replace(joined, cache)
