"""What is in a data folder: counts against the official ones, what is missing, what is broken."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Kind
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.preparation import check_scan, decode, fingerprint
from bmsfed_app.datasets.prepared import SPLITS, LeftOut, PreparedSource, Sample, read_index
from bmsfed_app.datasets.source import Source


@dataclass
class Inspection:
    """What was found.

    Attributes
    ----------
    per_class : dict
        Usable samples of every class, by split.
    bad : list of LeftOut
        Samples that cannot be used.
    notes : list of str
        What a user should know.
    official : dict
        The published number of samples by split; empty if none is known.
    cache : str
        The state of the prepared data; empty for data sets that are not prepared.
    cache_faults : list of str
        What is wrong with it.
    """

    per_class: dict[str, list[int]]
    bad: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    official: dict[str, int] = field(default_factory=dict)
    cache: str = ""
    cache_faults: list[str] = field(default_factory=list)


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
        return Inspection(counts, official=official)
    scan = check_scan(source, source.scan(data_dir, settings), settings)
    faults = _faults(scan.samples, source.kinds(settings), decode_all, progress)
    good = [s for s, fault in zip(scan.samples, faults, strict=True) if not fault]
    per_class = {
        split: np.bincount([s.label for s in good if s.split == split], minlength=classes).tolist()
        for split in SPLITS
    }
    bad = scan.bad + [
        LeftOut(s.id, f, s.split) for s, f in zip(scan.samples, faults, strict=True) if f
    ]
    cache = source.cache_dir(data_dir, settings)
    state, cache_faults = _cache_state(cache, fingerprint(scan))
    return Inspection(per_class, bad, scan.notes, official, state, cache_faults)


def _faults(
    samples: list[Sample],
    kinds: dict[str, Kind],
    decode_all: bool,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Why each sample cannot be used; empty where it can."""

    def attempt(sample: Sample) -> str:
        if not decode_all:
            missing = [f for v in sample.values.values() for f in _files(v) if not f.is_file()]
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


def _files(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _files(item)


def _cache_state(cache: Path, mark: str) -> tuple[str, list[str]]:
    """Say whether the prepared data is there, up to date and whole."""
    if not (cache / "index.json").is_file():
        partial = cache.with_name(cache.name + ".partial").is_dir()
        return ("a preparation was interrupted" if partial else "not prepared yet"), []
    try:
        index = read_index(cache)
    except DataError as error:
        return f"in {cache}", [str(error)]
    faults = []
    if index["fingerprint"] != mark:
        faults.append(f"{cache} was made from other files than these: prepare the data again")
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
    except (OSError, ValueError):
        return -1
    crc = 0
    for start in range(0, len(array), rows):
        crc = zlib.crc32(np.ascontiguousarray(array[start : start + rows]).data, crc)
    return crc
