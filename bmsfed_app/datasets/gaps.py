"""Samples that lack a modality: a value that is None, or names files of which none is there.

Where the settings say ``gaps: keep`` they are used for what they have; otherwise they are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmsfed_app.datasets.fingerprint import files_of
from bmsfed_app.datasets.kinds import Kind, Text
from bmsfed_app.datasets.prepared import LeftOut, Sample, Scan


def settle_gaps(scan: Scan, kinds: Mapping[str, Kind], *, keep: bool) -> Scan:
    """Keep or leave out the samples that lack a modality.

    Parameters
    ----------
    scan : Scan
        As a data set listed it.
    kinds : mapping
        Of each modality.
    keep : bool
        Use samples for what they have: files that are not there become None. Those that have
        nothing are left out, by rule. Otherwise every sample with a value that is None is left
        out, as a fault; files are looked for when they are decoded.
    """
    kept: list[Sample] = []
    bad = list(scan.bad)
    for s in scan.samples:
        found = {m: s.values.get(m) for m in kinds}
        if keep:
            found = {m: _found(value, kinds[m]) for m, value in found.items()}
        absent = [m for m in kinds if found[m] is None]
        if keep and len(absent) == len(kinds):
            cause = "has no modality"
            bad.append(LeftOut(s.id, f"{s.place()} {cause}", s.split, cause, True))
        elif absent and not keep:
            cause = f"lacks {absent[0]}"
            reason = f"{s.place()} {cause} (gaps: keep, or --missing keep, uses what it has)"
            bad.append(LeftOut(s.id, reason, s.split, cause))
        else:
            kept.append(replace(s, values=found) if absent else s)
    return Scan(kept, bad, scan.notes)


def lacking(samples: Sequence[Sample], kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Count the samples that lack a modality, by those that any lacks."""
    found = Counter(m for s in samples for m in kinds if s.values[m] is None)
    return {m: found[m] for m in kinds if found[m]}


def _found(value: Any, kind: Kind) -> Any:
    """Return a value, or None if all the files that it names are gone."""
    if isinstance(value, list | tuple) and not value:  # the files of a folder that is not there
        return None
    if isinstance(value, str) and isinstance(kind, Text):  # it may begin like a path
        return value
    files = list(files_of(value))
    return None if files and not any(map(os.path.exists, files)) else value
