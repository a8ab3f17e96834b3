"""MVSA-Single: posts of one text and one picture each, with their sentiment."""

from __future__ import annotations

import csv
from pathlib import Path

from bmsfed_app.datasets.media import first_dir, read_lines
from bmsfed_app.datasets.posts import PostSettings, PostSource
from bmsfed_app.datasets.prepared import Sample, Scan
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
        rows = [row for row in csv.reader(lines[1:]) if row]
        for guid, tag in sorted(rows, key=lambda row: int(row[0])):
            if tag not in CLASSES:
                scan.leave_out(guid, f"{guid} has tag '{tag}', not {', '.join(CLASSES)}")
                continue
            split = "test" if seen[tag] % 5 == 0 else "train"
            seen[tag] += 1
            values = {"text": folder / f"{guid}.txt", "image": folder / f"{guid}.jpg"}
            scan.samples.append(Sample(guid, split, CLASSES.index(tag), values))
        return scan


DATASETS.add(Mvsa.name, Mvsa())
