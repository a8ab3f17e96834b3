"""Decoding a data set's media into its cache: in parallel, resumable, with a report.

Samples are decoded in chunks, each one file in ``<cache>.partial`` (safetensors, written whole or
not at all); when all are there, they are joined into the arrays of the cache. A preparation that
was interrupted goes on with the chunks that lack. Threads do the work: the codecs release Python's
lock.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Kind, Rows
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.prepared import (
    FORMAT_VERSION,
    SPLITS,
    LeftOut,
    PreparedSource,
    Sample,
    Scan,
)
from bmsfed_app.datasets.ranges import check_ranges

_CHUNK = 64
#: Share of the listed samples that may be bad, unless the user says otherwise.
MAX_BAD = 0.01


@dataclass
class Prepared:
    """What a preparation gave.

    Attributes
    ----------
    cache : Path
    counts : dict
        Samples kept, by split.
    bad : list of LeftOut
        Samples left out.
    notes : list of str
        What a user should know.
    """

    cache: Path
    counts: dict[str, int]
    bad: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare(
    source: PreparedSource,
    data_dir: Path,
    settings: Any,
    *,
    workers: int = 0,
    max_bad: float = MAX_BAD,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Decode a data set into its cache; what is there already is not done again.

    Parameters
    ----------
    source : PreparedSource
    data_dir : Path
    settings
        The data set's, parsed.
    workers : int
        Threads; 0 takes one per core.
    max_bad : float
        Share of the listed samples that may be left out, 0 to 1.
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    DataError
        If the folder does not hold the data set, too many samples are bad, a split stays empty, the
        disk is full, or another process is preparing the same.
    """
    scan = check_scan(source, source.scan(data_dir, settings), settings)
    _limit(scan.bad, len(scan.samples) + len(scan.bad), max_bad, source.name)
    cache = source.cache_dir(data_dir, settings)
    mark = fingerprint(scan)
    if (found := _finished(cache, mark)) is not None:
        return found
    partial = cache.with_name(cache.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which goes while the lock is held: some systems keep an open file.
        with FileLock(cache.with_name(cache.name + ".lock"), blocking=False):
            if (found := _finished(cache, mark)) is not None:
                return found
            _start(partial, mark)
            kinds = source.kinds(settings)
            bad = _decode(scan, kinds, partial, workers or os.cpu_count() or 1, max_bad, progress)
            prepared = Prepared(cache, {}, scan.bad + bad, scan.notes)
            _join(scan.samples, kinds, partial, prepared, mark)
            _replace(partial / "joined", cache)
            shutil.rmtree(partial)
    except Timeout:
        raise DataError(
            f"another process is preparing '{source.name}' from this folder: wait until it is done"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot write the cache {cache} ({error}): free the disk or set BMSFED_HOME to a "
            "folder that can be written, and prepare again; what was done is kept"
        ) from None
    return prepared


def check_scan(source: PreparedSource, scan: Scan, settings: Any) -> Scan:
    """Check what a data set listed: labels in the map, no sample in both splits, official counts.

    Samples of the training split whose key is in the test split are taken out, and noted.
    """
    classes = len(source.classes(settings))
    kept: list[Sample] = []
    outside: list[Sample] = []
    for s in scan.samples:
        (kept if 0 <= s.label < classes else outside).append(s)
    bad = scan.bad + [
        LeftOut(
            s.id, f"{s.id} has label {s.label}, not in 0 to {classes - 1}", s.split, "unknown label"
        )
        for s in outside
    ]
    test = {s.key or s.id for s in kept if s.split == "test"}
    leaks = [s for s in kept if s.split == "train" and (s.key or s.id) in test]
    notes = list(scan.notes)
    if leaks:
        notes.append(
            f"{len(leaks)} training samples share their origin with a test sample and are left "
            f"out: {_some([s.id for s in leaks])}"
        )
        gone = {id(s) for s in leaks}
        kept = [s for s in kept if id(s) not in gone]
    repeated = [k for k, n in Counter((s.split, s.id) for s in kept).items() if n > 1]
    if repeated:
        notes.append(
            f"{len(repeated)} ids come more than once in a split, all are kept: "
            f"{_some([k for _, k in repeated])}"
        )
    return Scan(kept, bad, notes)


def fingerprint(scan: Scan) -> str:
    """Return a digest of the samples listed; a cache made from others is out of date."""
    digest = hashlib.sha256()
    for s in scan.samples:
        values = {
            m: zlib.crc32(np.ascontiguousarray(v).data) if isinstance(v, np.ndarray) else str(v)
            for m, v in s.values.items()
        }
        digest.update(repr((s.id, s.split, s.label, s.client, values)).encode())
    return digest.hexdigest()


# --- decoding -----------------------------------------------------------------------------------


def decode(sample: Sample, kinds: Mapping[str, Kind]) -> Rows:
    """Decode all modalities of a sample, by store.

    Raises
    ------
    BadSample
        If one cannot be used.
    """
    rows: Rows = {}
    for modality, kind in kinds.items():
        parts = kind.decode(sample.values[modality])
        rows |= {f"{modality}.{part}": np.asarray(value) for part, value in parts.items()}
    return rows


def _decode(
    scan: Scan,
    kinds: Mapping[str, Kind],
    partial: Path,
    workers: int,
    max_bad: float,
    progress: Callable[[int, int], None],
) -> list[LeftOut]:
    total, bad = len(scan.samples), []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, total, _CHUNK):
                chunk = scan.samples[start : start + _CHUNK]
                file = _chunk_file(partial, start)
                bad += _read_chunk(file)[1] if file.is_file() else _make(chunk, kinds, file, pool)
                progress(min(start + _CHUNK, total), total)
                _limit(scan.bad + bad, total + len(scan.bad), max_bad, "the data")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _make(
    chunk: Sequence[Sample], kinds: Mapping[str, Kind], file: Path, pool: ThreadPoolExecutor
) -> list[LeftOut]:
    def attempt(sample: Sample) -> Rows | str:
        try:
            return decode(sample, kinds)
        except BadSample as error:
            return str(error)

    results = list(pool.map(attempt, chunk))
    good = {i: r for i, r in enumerate(results) if not isinstance(r, str)}
    bad = [
        LeftOut(chunk[i].id, r, chunk[i].split) for i, r in enumerate(results) if isinstance(r, str)
    ]
    names = next(iter(good.values()), {})
    # safetensors writes memory as it lies; stacking may keep another order of axes than C's.
    arrays = {
        name: np.ascontiguousarray(np.stack([rows[name] for rows in good.values()]))
        for name in names
    }
    header = {"good": json.dumps(list(good)), "bad": json.dumps(bad)}
    save_file(arrays, file.with_suffix(".new"), metadata=header)
    os.replace(file.with_suffix(".new"), file)
    return bad


def _chunk_file(partial: Path, start: int) -> Path:
    return partial / f"chunk-{start:08d}.safetensors"


def _read_chunk(file: Path) -> tuple[list[int], list[LeftOut]]:
    """Rows of the chunk that are good, and why the others are not."""
    try:
        with safe_open(file, framework="numpy") as chunk:
            header = chunk.metadata()
        return json.loads(header["good"]), [LeftOut(*b) for b in json.loads(header["bad"])]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"cannot read {file} ({error}): delete it and prepare again") from None


def _limit(bad: Sequence[LeftOut], total: int, max_bad: float, name: str) -> None:
    if len(bad) > max_bad * total:
        raise DataError(
            f"{len(bad)} of {total} samples of {name} cannot be used, more than the {max_bad:.1%} "
            f"allowed ({_some([b.reason for b in bad])}): mend them, or allow more with "
            "--max-bad"
        )


def _some(items: Sequence[str], number: int = 3) -> str:
    more = f", and {len(items) - number} more" if len(items) > number else ""
    return ", ".join(items[:number]) + more


# --- joining ------------------------------------------------------------------------------------


def _join(
    samples: Sequence[Sample],
    kinds: Mapping[str, Kind],
    partial: Path,
    prepared: Prepared,
    mark: str,
) -> None:
    """Write the arrays of the cache into ``joined`` in the partial folder."""
    chunks = [(i, _read_chunk(_chunk_file(partial, i))[0]) for i in range(0, len(samples), _CHUNK)]
    rows = {
        split: [(i, [r for r in good if samples[i + r].split == split], good) for i, good in chunks]
        for split in SPLITS
    }
    joined = partial / "joined"
    shutil.rmtree(joined, ignore_errors=True)
    described = {}
    for split, parts in rows.items():
        kept = [samples[i + r] for i, wanted, _ in parts for r in wanted]
        if not kept:
            raise DataError(f"no sample is left for the {split} split: mend the data folder")
        (joined / split).mkdir(parents=True)
        stores = _write_stores(joined / split, partial, parts, len(kept))
        labels = np.array([s.label for s in kept], dtype=np.int64)
        np.save(joined / split / "labels.npy", labels)
        stores["labels"] = _describe(labels, zlib.crc32(labels.data))
        with (joined / split / "samples.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "client", *kinds])
            for s in kept:
                captions = [kind.caption(s.values[m]) for m, kind in kinds.items()]
                writer.writerow([s.id, s.label, s.client, *captions])
        prepared.counts[split] = len(kept)
        described[split] = {"count": len(kept), "stores": stores}
    prepared.notes += check_ranges(kinds, joined / "train")
    index = {
        "format": FORMAT_VERSION,
        "fingerprint": mark,
        "splits": described,
        "bad": prepared.bad,
        "notes": prepared.notes,
    }
    (joined / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write_stores(
    folder: Path, partial: Path, parts: Sequence[tuple[int, list[int], list[int]]], count: int
) -> dict[str, Any]:
    arrays: dict[str, NDArray[Any]] = {}
    sums: Counter[str] = Counter()
    at = 0
    for start, wanted, good in parts:
        if not wanted:
            continue
        places = np.searchsorted(good, wanted)
        with safe_open(_chunk_file(partial, start), framework="numpy") as chunk:
            for name in chunk.keys():  # noqa: SIM118
                values = np.ascontiguousarray(chunk.get_tensor(name)[places])
                if name not in arrays:
                    arrays[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy",
                        mode="w+",
                        dtype=values.dtype,
                        shape=(count, *values.shape[1:]),
                    )
                arrays[name][at : at + len(values)] = values
                sums[name] = zlib.crc32(values.data, sums[name])
        at += len(wanted)
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    return {name: _describe(array, sums[name]) for name, array in arrays.items()}


def _describe(array: NDArray[Any], crc: int) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "crc32": crc}


# --- the folder ---------------------------------------------------------------------------------


def _finished(cache: Path, mark: str) -> Prepared | None:
    """Return what a complete, up-to-date cache holds; None if there is none."""
    try:
        index = json.loads((cache / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if index["fingerprint"] != mark:
        return None
    counts = {split: of["count"] for split, of in index["splits"].items()}
    return Prepared(cache, counts, [LeftOut(*b) for b in index["bad"]], index["notes"])


def _start(partial: Path, mark: str) -> None:
    """Throw away chunks of another list of samples."""
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
