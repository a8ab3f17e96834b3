"""What is in a data folder: counts against the official ones, what is missing, what is broken."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bmsfed_app.datasets.account import Account, some
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.checks import check_classes, list_folder
from bmsfed_app.datasets.decoding import decode
from bmsfed_app.datasets.fingerprint import (
    FolderState,
    changed_files,
    files_of,
    look,
    read_files,
)
from bmsfed_app.datasets.gaps import lacking
from bmsfed_app.datasets.kinds import Kind
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.prepared import SPLITS, LeftOut, PreparedSource, Sample, read_index
from bmsfed_app.datasets.source import Source

#: So many natural clients are named with their sizes.
_NAMED = 20


@dataclass
class Inspection:
    """What was found.

    Attributes
    ----------
    account : Account
        How many samples can be used, which are left out, and what a user should know.
    per_class : dict
        Usable samples of every class, by split.
    official : dict
        The published number of samples by split; empty if none is known.
    natural : dict
        Usable training samples of each natural client; of those that name none, under "".
    cache : str
        The state of the prepared data; empty for data sets that are not prepared.
    faults : list of str
        What is wrong with it, or with the classes.
    """

    account: Account
    per_class: dict[str, list[int]]
    official: dict[str, int] = field(default_factory=dict)
    natural: dict[str, int] = field(default_factory=dict)
    cache: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is left out for a fault, and nothing else is wrong."""
        return not self.faults and all(one.by_rule for one in self.account.bad)

    def natural_lines(self, what: str) -> Iterator[str]:
        """Say how many natural clients there are, and how many training samples they have.

        Parameters
        ----------
        what : str
            What they are, such as "talkers".
        """
        sizes = {name: size for name, size in sorted(self.natural.items()) if name}
        if sizes:
            least, middle, most = np.percentile(list(sizes.values()), [0, 50, 100])
            each = f": {', '.join(f'{n} {size}' for n, size in sizes.items())}"
            yield (
                f"natural clients ({what}): {len(sizes)} with {least:g} to {most:g} training "
                f"samples, median {middle:g}{each if len(sizes) <= _NAMED else ''}"
            )
        if nameless := self.natural.get("", 0):
            yield (
                f"natural clients ({what}): {nameless} training samples name none, which "
                "partition: natural does not take"
            )


def inspect(
    source: Source,
    data_dir: Path,
    settings: Any,
    *,
    seed: int = 0,
    decode_all: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Look at a data folder, and at what was prepared from it.

    Parameters
    ----------
    source : Source
    data_dir : Path
    settings
        The data set's, parsed.
    seed : int
        For data sets that draw at random.
    decode_all : bool
        Decode every sample, to find broken files; otherwise only look whether they are there.
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    DataError
        If the folder does not hold the data set.
    """
    official = dict(source.official_counts(settings))
    classes = len(source.info(settings).class_names)
    if not isinstance(source, PreparedSource):
        loaded = {s: source.load_split(s, data_dir, seed, settings) for s in SPLITS}
        counts = {s: of.class_counts(classes).tolist() for s, of in loaded.items()}
        return Inspection(_account(counts, [], []), counts, official)
    scan = list_folder(source, data_dir, settings)
    faults = _faults(scan.samples, source.kinds(settings), decode_all, progress)
    good = [s for s, fault in zip(scan.samples, faults, strict=True) if not fault]
    per_class = {
        split: np.bincount([s.label for s in good if s.split == split], minlength=classes).tolist()
        for split in SPLITS
    }
    bad = scan.bad + [
        LeftOut(s.id, f"{s.place()}: {f}", s.split, "cannot be decoded")
        for s, f in zip(scan.samples, faults, strict=True)
        if f
    ]
    state, wrong = _cache_state(
        source.cache_dir(data_dir, settings), look(scan, data_dir), data_dir
    )
    notes = list(scan.notes)
    try:
        notes += check_classes(source, settings, per_class)
    except DataError as error:
        wrong.append(str(error))
    natural = Counter(s.client for s in good if s.split == "train") if source.natural else {}
    account = _account(per_class, bad, notes)
    kinds = source.kinds(settings)
    account.lacking = {s: lacking([x for x in good if x.split == s], kinds) for s in SPLITS}
    return Inspection(account, per_class, official, dict(natural), state, wrong)


def _account(
    per_class: Mapping[str, Sequence[int]], bad: list[LeftOut], notes: list[str]
) -> Account:
    return Account(None, {split: sum(counts) for split, counts in per_class.items()}, bad, notes)


def _faults(
    samples: list[Sample],
    kinds: dict[str, Kind],
    decode_all: bool,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Why each sample cannot be used; empty where it can."""

    def attempt(sample: Sample) -> str:
        if not decode_all:
            named = [f for v in sample.values.values() for f in files_of(v)]
            missing = [f for f in named if not os.path.exists(f)]
            return f"{missing[0]} is missing" if missing else ""
        try:
            decode(sample, kinds)
        except BadSample as error:
            return str(error)
        return ""

    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, fault in enumerate(pool.map(attempt, samples), start=1):
            found.append(fault)
            progress(done, len(samples))
    return found


def _cache_state(cache: Path, state: FolderState, data_dir: Path) -> tuple[str, list[str]]:
    """Say whether the prepared data is there, up to date and whole."""
    if not (cache / "index.json").is_file():
        partial = cache.with_name(cache.name + ".partial").is_dir()
        return ("a preparation was interrupted" if partial else "not prepared yet"), []
    try:
        index, known = read_index(cache), read_files(cache / "files.json")
        listing = index["listing"]
    except (DataError, OSError, ValueError, KeyError):
        return "damaged, or by another version of the app: the next start prepares it anew", []
    changed, _ = changed_files(known, state.files, data_dir, os.cpu_count() or 1)
    if listing != state.listing or changed:
        what = some(changed) if changed else "the samples listed"
        return f"out of date ({what} changed): the next start prepares it anew", []
    faults = []
    for split, of in index["splits"].items():
        for name, described in of["stores"].items():
            file = cache / split / f"{name}.npy"
            if _crc32(file) != described["crc32"]:
                faults.append(f"{file} is damaged: delete {cache} and prepare the data again")
    size = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file())
    return f"in {cache} ({size / 2**20:,.0f} MiB)", faults


def _crc32(file: Path, rows: int = 1024) -> int:
    """Checksum of an array's values, a piece at a time; -1 if the file cannot be read."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return -1
    crc = 0
    for start in range(0, len(array), rows):
        crc = zlib.crc32(np.ascontiguousarray(array[start : start + rows]).data, crc)
    return crc
