"""Decoding samples in chunks, and joining the chunks into the arrays of a cache.

A chunk is one file (safetensors), written whole or not at all: what was interrupted goes on with
the chunks that lack. Threads do the work: the codecs release Python's lock.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.gaps import lacking
from bmsfed_app.datasets.kinds import Kind, Rows
from bmsfed_app.datasets.media import BadSample
from bmsfed_app.datasets.prepared import PRESENT, SPLITS, LeftOut, Sample

_CHUNK = 64


def decode(sample: Sample, kinds: Mapping[str, Kind]) -> Rows:
    """Decode all modalities that a sample has, by store.

    Raises
    ------
    BadSample
        If one cannot be used.
    """
    rows: Rows = {}
    for modality, kind in kinds.items():
        if sample.values[modality] is None:
            continue
        parts = kind.decode(sample.values[modality])
        rows |= {f"{modality}.{part}": np.asarray(value) for part, value in parts.items()}
    return rows


def decode_all(
    samples: Sequence[Sample],
    kinds: Mapping[str, Kind],
    partial: Path,
    workers: int,
    check: Callable[[list[LeftOut]], None],
    progress: Callable[[int, int], None],
) -> list[LeftOut]:
    """Decode samples into chunks in a folder; those that are there are not made again.

    Parameters
    ----------
    samples : sequence of Sample
    kinds : mapping
        By modality.
    partial : Path
        The folder.
    workers : int
        Threads.
    check : callable
        Called after every chunk with all samples that could not be decoded; may raise.
    progress : callable
        Called with (samples done, samples in all).

    Returns
    -------
    list of LeftOut
        What could not be decoded.
    """
    total, bad = len(samples), []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, total, _CHUNK):
                chunk = samples[start : start + _CHUNK]
                file = _chunk_file(partial, start)
                bad += _read_chunk(file)[1] if file.is_file() else _make(chunk, kinds, file, pool)
                progress(min(start + _CHUNK, total), total)
                check(bad)
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
        LeftOut(chunk[i].id, f"{chunk[i].place()}: {r}", chunk[i].split, "cannot be decoded")
        for i, r in enumerate(results)
        if isinstance(r, str)
    ]
    # What nobody in the chunk has is not in it; of what some lack, their rows are zeros.
    blank = {n: np.zeros_like(array) for rows in good.values() for n, array in rows.items()}
    # safetensors writes memory as it lies; stacking may keep another order of axes than C's.
    arrays = {
        name: np.ascontiguousarray(np.stack([rows.get(name, nothing) for rows in good.values()]))
        for name, nothing in blank.items()
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


# --- joining ------------------------------------------------------------------------------------


def join(
    samples: Sequence[Sample], kinds: Mapping[str, Kind], partial: Path, joined: Path, classes: int
) -> dict[str, Any]:
    """Write the arrays of a cache, and a ``samples.csv`` per split, from all chunks of a folder.

    Parameters
    ----------
    samples : sequence of Sample
        As they were decoded.
    kinds : mapping
        By modality.
    partial : Path
        The folder with the chunks.
    joined : Path
        The folder to write to; made anew.
    classes : int
        Their number.

    Returns
    -------
    dict
        By split: the number of samples, of those of each class, of those that lack a modality, and
        what its arrays are.

    Raises
    ------
    DataError
        If a split has no sample left, or no sample has a modality.
    """
    chunks = [(i, _read_chunk(_chunk_file(partial, i))[0]) for i in range(0, len(samples), _CHUNK)]
    rows = {
        split: [(i, [r for r in good if samples[i + r].split == split], good) for i, good in chunks]
        for split in SPLITS
    }
    blank = _blank_rows(kinds, [_chunk_file(partial, i) for i, good in chunks if good])
    shutil.rmtree(joined, ignore_errors=True)
    described = {}
    for split, parts in rows.items():
        kept = [samples[i + r] for i, wanted, _ in parts for r in wanted]
        if not kept:
            raise DataError(f"no sample is left for the {split} split: mend the data folder")
        (joined / split).mkdir(parents=True)
        stores = _write_stores(joined / split, partial, parts, blank)
        labels = np.array([s.label for s in kept], dtype=np.int64)
        whole = {"labels": labels} | {
            m + PRESENT: np.array([s.values[m] is not None for s in kept])
            for m in lacking(kept, kinds)
        }
        for name, array in whole.items():
            np.save(joined / split / f"{name}.npy", array)
            stores[name] = _describe(array, zlib.crc32(array.data))
        _write_samples(joined / split / "samples.csv", kept, kinds)
        described[split] = {
            "count": len(kept),
            "per_class": np.bincount(labels, minlength=classes).tolist(),
            "lacking": lacking(kept, kinds),
            "stores": stores,
        }
    return described


def _write_samples(file: Path, samples: Sequence[Sample], kinds: Mapping[str, Kind]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label", "client", *kinds])
        for s in samples:
            had = {m: s.values[m] is not None for m in kinds}
            captions = [kind.caption(s.values[m]) if had[m] else "" for m, kind in kinds.items()]
            writer.writerow([s.id, s.label, s.client, *captions])


def _blank_rows(kinds: Mapping[str, Kind], files: Sequence[Path]) -> Rows:
    """Return a row of zeros of every store, like those in the first chunks that have it."""
    blank: Rows = {}
    sought = set(kinds)
    for file in files:
        if not sought:
            break
        with safe_open(file, framework="numpy") as chunk:
            for name in chunk.keys():  # noqa: SIM118
                blank.setdefault(name, np.zeros_like(chunk.get_slice(name)[:1][0]))
        sought -= {name.rpartition(".")[0] for name in blank}
    if files and sought:
        raise DataError(
            f"no sample has '{min(sought)}': leave it out of the modalities, or mend the data"
        )
    return blank


def _write_stores(
    folder: Path, partial: Path, parts: Sequence[tuple[int, list[int], list[int]]], blank: Rows
) -> dict[str, Any]:
    count = sum(len(wanted) for _, wanted, _ in parts)
    arrays: dict[str, NDArray[Any]] = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=row.dtype, shape=(count, *row.shape)
        )
        for name, row in blank.items()
    }
    sums: Counter[str] = Counter()
    at = 0
    for start, wanted, good in parts:
        if not wanted:
            continue
        places = np.searchsorted(good, wanted)
        with safe_open(_chunk_file(partial, start), framework="numpy") as chunk:
            held = set(chunk.keys())
            for name, row in blank.items():
                values = np.zeros((len(wanted), *row.shape), row.dtype)
                if name in held:
                    values = np.ascontiguousarray(chunk.get_tensor(name)[places])
                arrays[name][at : at + len(values)] = values
                sums[name] = zlib.crc32(values.data, sums[name])
        at += len(wanted)
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    return {name: _describe(array, sums[name]) for name, array in arrays.items()}


def _describe(array: NDArray[Any], crc: int) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "crc32": crc}
