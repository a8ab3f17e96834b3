"""CREMA-D: acted emotional clips, sound and face (Cao et al., 2014; the paper, Sect. 4.1).

Recipes: 3 s of 16 kHz sound as a 257 x 299 log-spectrogram; 3 frames of 224 x 224.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Audio, Frames, Kind
from bmsfed_app.datasets.media import first_dir, read_lines
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan, note_unlisted
from bmsfed_app.datasets.source import DATASETS, PreparedSettings
from strategies.randomness import generator

#: In the order of the published labels.
CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
_SPLIT_FILES = {
    split: (f"{split}.csv", f"bmsfed_{split}.csv", f"CREMAD/{split}.csv")
    for split in ("train", "test")
}


class CremaDSettings(PreparedSettings):
    """Settings of ``crema-d``."""

    side: int = Field(224, ge=32, description="side of a frame in pixels")
    frames: int = Field(
        3, ge=1, le=5, description="frames a sample, of up to 5 kept at 1 per second"
    )


class CremaD(PreparedSource):
    """7,442 clips of 91 actors; natural clients are the actors."""

    name = "crema-d"
    summary = "acted speech: sound and face, six emotions"
    obtain = "github.com/CheyneyComputerScience/CREMA-D (Git LFS); Open Database License."
    layout = (
        "AudioWAV/<clip>.wav and VideoFlash/<clip>.flv; for the published division also train.csv "
        "and test.csv (lines clip,label)"
    )
    official: ClassVar = {"train": 6698, "test": 744}
    natural = "actors"
    settings = CremaDSettings

    def kinds(self, settings: CremaDSettings) -> dict[str, Kind]:
        """Sound first: it is the stronger one."""
        return {
            "audio": Audio(),
            "visual": Frames(settings.frames, settings.side),
        }

    def classes(self, settings: CremaDSettings) -> tuple[str, ...]:
        """The six emotions."""
        return CLASSES

    def scan(self, data_dir: Path, settings: CremaDSettings) -> Scan:
        """List the clips of the published division, or of one of our own where it is absent."""
        sound = first_dir(data_dir, ["AudioWAV"], f"'{self.name}' needs {self.layout}")
        video = first_dir(data_dir, ["VideoFlash"], f"'{self.name}' needs {self.layout}")
        scan = Scan()
        for split, clips in self._division(data_dir, sound, scan).items():
            for clip, label in clips:
                if label not in CLASSES:
                    reason = f"{clip} has label '{label}', not {', '.join(CLASSES)}"
                    scan.leave_out(clip, reason, split, "unknown label")
                    continue
                values = {"audio": sound / f"{clip}.wav", "visual": video / f"{clip}.flv"}
                actor = clip.partition("_")[0]
                label_number = CLASSES.index(label)
                scan.samples.append(Sample(clip, split, label_number, values, actor, clip))
        named = {s.id for s in scan.samples} | {one.sample for one in scan.bad}
        note_unlisted(scan, sound.glob("*.wav"), named, "train.csv and test.csv")
        return scan

    def _division(
        self, data_dir: Path, sound: Path, scan: Scan
    ) -> dict[str, list[tuple[str, str]]]:
        """(clip, label) pairs by split."""
        found = {
            split: next((data_dir / n for n in names if (data_dir / n).is_file()), None)
            for split, names in _SPLIT_FILES.items()
        }
        if all(found.values()):
            return {
                split: [(row[0], row[1]) for row in csv.reader(read_lines(file, "")) if row]
                for split, file in found.items()
                if file is not None
            }
        if any(found.values()):
            raise DataError(f"only one of train.csv and test.csv is in {data_dir}: add the other")
        scan.notes.append(
            "no train.csv and test.csv: a tenth of the clips, drawn once for all, is the test "
            "split; it is not the published one"
        )
        clips = sorted(p.stem for p in sound.glob("*.wav"))
        if not clips:
            raise DataError(f"no .wav file in {sound}: '{self.name}' needs {self.layout}")
        test = set(generator(0, self.name).permutation(len(clips))[: len(clips) // 10].tolist())
        rows = [(clip, clip.split("_")[2] if clip.count("_") > 1 else "") for clip in clips]
        return {
            "train": [row for i, row in enumerate(rows) if i not in test],
            "test": [rows[i] for i in np.sort(list(test))],
        }


DATASETS.add(CremaD.name, CremaD())
