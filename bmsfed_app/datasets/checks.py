"""What is checked of a data set's samples before anything is decoded, and again before training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmsfed_app.datasets.account import some
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.gaps import settle_gaps
from bmsfed_app.datasets.prepared import LeftOut, PreparedSource, Sample, Scan

#: Share of the listed samples that may be left out for faults, unless the user says otherwise.
MAX_BAD = 0.01


def list_folder(source: PreparedSource, data_dir: Path, settings: Any) -> Scan:
    """List a data folder, and check what it lists: see :func:`settle_gaps`, :func:`check_scan`.

    Raises
    ------
    DataError
        If the folder does not hold the data set, or the data set's loader fails on it.
    """
    try:
        scan = source.scan(data_dir, settings)
    except (DataError, OSError):
        raise
    except Exception as error:  # whatever somebody's loader raises
        raise DataError(
            f"the loader of '{source.name}' failed on {data_dir} ({type(error).__name__}: "
            f"{error}): mend the loader, or what the folder holds"
        ) from error
    if not (scan.samples or scan.bad):
        raise DataError(f"no sample in {data_dir}: '{source.name}' needs {source.layout}")
    keep = getattr(settings, "gaps", "refuse") == "keep"
    return check_scan(source, settle_gaps(scan, source.kinds(settings), keep=keep), settings)


def check_scan(source: PreparedSource, scan: Scan, settings: Any) -> Scan:
    """Check what a data set listed: labels in the map, no sample in both splits.

    Samples whose label is unknown are taken out; so are those of the training split whose key is in
    the test split, by rule.
    """
    classes = len(source.classes(settings))
    kept: list[Sample] = []
    outside: list[Sample] = []
    for s in scan.samples:
        (kept if 0 <= s.label < classes else outside).append(s)
    bad = scan.bad + [
        LeftOut(
            s.id,
            f"{s.place()} has label {s.label}, not in 0 to {classes - 1}",
            s.split,
            "unknown label",
        )
        for s in outside
    ]
    test = {s.key for s in kept if s.split == "test" and s.key}
    leaks = [s for s in kept if s.split == "train" and s.key in test]
    cause = "shares its origin with a test sample"
    bad += [LeftOut(s.id, f"{s.id} {cause} ({s.key})", "train", cause, True) for s in leaks]
    gone = {id(s) for s in leaks}
    kept = [s for s in kept if id(s) not in gone]
    notes = list(scan.notes)
    return Scan(kept, bad, [*notes, *_repeated(kept)])


def _repeated(samples: Sequence[Sample]) -> list[str]:
    """Note ids that several samples of a split have."""
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for s in samples:
        named[s.split, s.id].append(s.where)
    twice = [
        f"{name} in {split}" + (f" ({some(at, 4)})" if any(at) else "")
        for (split, name), at in named.items()
        if len(at) > 1
    ]
    if not twice:
        return []
    return [f"{len(twice)} ids stand for several samples of a split, all are kept: {some(twice)}"]


def check_share(bad: Sequence[LeftOut], total: int, max_bad: float, name: str) -> None:
    """Refuse a data set of which too many samples are left out for faults.

    Raises
    ------
    DataError
        If more than the share ``max_bad`` of the ``total`` samples listed are.
    """
    counted = [one for one in bad if not one.by_rule]
    faulty = [one.reason for one in counted]
    if len(faulty) > max_bad * total:
        lacks = any(one.cause.startswith("lacks ") for one in counted)
        kept = ", or use those that lack a modality for what they have (--missing keep)" * lacks
        raise DataError(
            f"{len(faulty)} of {total} samples of {name} cannot be used, more than the "
            f"{max_bad:.1%} allowed ({some(faulty)}): mend them, or allow more with max_bad in the "
            f"YAML file or --set max_bad=SHARE{kept}"
        )


def check_classes(
    source: PreparedSource, settings: Any, per_class: Mapping[str, Sequence[int]]
) -> list[str]:
    """Find classes that a split has no sample of.

    Parameters
    ----------
    source : PreparedSource
    settings
        The data set's, parsed.
    per_class : mapping
        Samples of every class, by split.

    Returns
    -------
    list of str
        What a user should know. Of a data set of which part may be at hand
        (:meth:`Source.may_lack_classes`) classes without training samples are among it.

    Raises
    ------
    DataError
        If a class of another data set has no training sample.
    """
    names = source.classes(settings)
    lacking = {
        split: [name for name, n in zip(names, counts, strict=True) if not n]
        for split, counts in per_class.items()
    }
    if (never := lacking["train"]) and not source.may_lack_classes(settings):
        raise DataError(
            f"no training sample is of class {some([repr(n) for n in never])}, which can never be "
            "learnt: drop it from the classes, or mend the data"
        )
    return [
        f"no {what} sample is of {len(lacking[split])} of the {len(names)} classes "
        f"({some(lacking[split])}): {consequence}"
        for split, what, consequence in (
            ("train", "training", "they cannot be learnt"),
            ("test", "test", "the accuracy says nothing of them"),
        )
        if lacking[split]
    ]
