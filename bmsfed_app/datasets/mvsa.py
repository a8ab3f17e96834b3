"""MVSA-Single: posts of one text and one picture each, with their sentiment."""

from __future__ import annotations

import csv
from pathlib import Path

from bmsfed_app.datasets.media import first_dir, read_lines
from bmsfed_app.datasets.posts import PostSettings, PostSource
from bmsfed_app.datasets.prepared import Sample, Scan, note_unlisted
from bmsfed_app.datasets.source import DATASETS

CLASSES = ("negative", "neutral", "positive")


class Mvsa(PostSource):
    """The text and picture of each post; every fifth of a class, by number, is a test sample."""

    name = "mvsa"
    summary = "posts of one text and one picture, three sentiments"
    obtain = (
        "MVSA-Single (Niu et al., 2016), from its authors' site (mcrlab.net); no licence stated, "
        "for research."
    )
    layout = "train.txt (lines guid,tag) and data/<guid>.txt, data/<guid>.jpg"
    settings = PostSettings

    def classes(self, settings: PostSettings) -> tuple[str, ...]:
        """The three sentiments."""
        return CLASSES

    def scan(self, data_dir: Path, settings: PostSettings) -> Scan:
        """List the posts of ``train.txt``."""
        lines = read_lines(data_dir / "train.txt", f"'{self.name}' needs {self.layout}")
        folder = first_dir(data_dir, ["data"], f"'{self.name}' needs {self.layout}")
        scan, seen = Scan(), dict.fromkeys(CLASSES, 0)
        rows = _rows(lines, scan)
        for guid, tag in sorted(rows, key=lambda row: int(row[0])):
            if tag not in CLASSES:
                reason = f"{guid} has tag '{tag}', not {', '.join(CLASSES)}"
                scan.leave_out(guid, reason, cause="unknown label")
                continue
            split = "test" if seen[tag] % 5 == 0 else "train"
            seen[tag] += 1
            values = {"text": folder / f"{guid}.txt", "image": folder / f"{guid}.jpg"}
            scan.samples.append(Sample(guid, split, CLASSES.index(tag), values, key=guid))
        note_unlisted(scan, folder.glob("*.jpg"), {guid for guid, _ in rows}, "train.txt")
        return scan


def _rows(lines: list[str], scan: Scan) -> list[tuple[str, str]]:
    """(guid, tag) pairs of the lines after the head."""
    found = []
    for number, row in enumerate(csv.reader(lines[1:]), start=2):
        if len(row) == 2 and row[0].isdecimal():
            found.append((row[0], row[1]))
        elif row:
            where = f"train.txt line {number}"
            scan.leave_out(where, f"{where} is not guid,tag: {','.join(row)[:60]!r}")
    return found


DATASETS.add(Mvsa.name, Mvsa())
