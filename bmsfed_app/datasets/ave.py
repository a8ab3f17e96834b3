"""AVE: events that are seen and heard in videos (Tian et al., 2018; the paper, Sect. 4.1).

The event's seconds are cut out of each video: its sound, repeated to 10 s of 16 kHz, as a
257 x 1004 log-spectrogram; 4 frames of 224 x 224 out of those at one per second.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from bmsfed_app.datasets.kinds import Audio, Frames, Kind
from bmsfed_app.datasets.media import first_dir, read_lines
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, PreparedSettings

#: In the order of the published annotations.
CLASSES = tuple(
    "Church bell|Male speech, man speaking|Bark|Fixed-wing aircraft, airplane|"
    "Race car, auto racing|Female speech, woman speaking|Helicopter|Violin, fiddle|Flute|Ukulele|"
    "Frying (food)|Truck|Shofar|Motorcycle|Acoustic guitar|Train horn|Clock|Banjo|Goat|"
    "Baby cry, infant cry|Bus|Chainsaw|Cat|Horse|Toilet flush|Rodents, rats, mice|Accordion|"
    "Mandolin".split("|")
)
_LISTS = {"train": "trainSet.txt", "test": "testSet.txt", "validation": "valSet.txt"}


class AveSettings(PreparedSettings):
    """Settings of ``ave``."""

    side: int = Field(224, ge=32, description="side of a frame in pixels")
    frames: int = Field(4, ge=1, le=10, description="frames a sample")
    kept_frames: int = Field(10, ge=1, le=10, description="frames kept to draw from")
    evaluate_on: Literal["test", "validation"] = Field("test", description="the list to test on")


class Ave(PreparedSource):
    """4,142 events in 28 classes."""

    name = "ave"
    summary = "events in videos: sound and picture, 28 classes"
    obtain = "github.com/YapengTian/AVE-ECCV18 (videos from YouTube; for research)."
    layout = (
        "AVE/<youtube id>.mp4 and the lists trainSet.txt, valSet.txt, testSet.txt (lines "
        "class&id&quality&start&end)"
    )
    #: What the published lists hold; the paper counts 3,339.
    official: ClassVar = {"train": 3338, "test": 402}
    settings = AveSettings

    def kinds(self, settings: AveSettings) -> dict[str, Kind]:
        """Sound first: it is the stronger one."""
        side, most = settings.side, max(settings.kept_frames, settings.frames)
        return {
            "audio": Audio(seconds=10.0),
            "visual": Frames(settings.frames, side, most=most),
        }

    def classes(self, settings: AveSettings) -> tuple[str, ...]:
        """The 28 events."""
        return CLASSES

    def scan(self, data_dir: Path, settings: AveSettings) -> Scan:
        """List the events of the published division."""
        remedy = f"'{self.name}' needs {self.layout}"
        folder = first_dir(data_dir, ["AVE"], remedy)
        scan = Scan()
        for split, name in (("train", "train"), ("test", settings.evaluate_on)):
            file = data_dir / _LISTS[name]
            for number, line in enumerate(read_lines(file, remedy), start=1):
                if line.strip():
                    self._add(scan, split, line, f"{file.name} line {number}", folder)
        often = [
            k
            for k, n in Counter(s.key for s in scan.samples if s.split == "train").items()
            if n > 1
        ]
        if often:
            scan.notes.append(
                f"{len(often)} videos come more than once in {_LISTS['train']} (other events or "
                "seconds); all are kept"
            )
        unused = _LISTS["validation" if settings.evaluate_on == "test" else "test"]
        scan.notes.append(f"{unused} is not used (evaluate_on: {settings.evaluate_on})")
        return scan

    @staticmethod
    def _add(scan: Scan, split: str, line: str, where: str, folder: Path) -> None:
        parts = line.strip().split("&")
        try:
            event, video, _, start, end = parts
            span = (float(start), float(end))
        except ValueError:
            reason = f"{where} is not class&id&quality&start&end: {line[:60]!r}"
            scan.leave_out(where, reason, split)
            return
        if event not in CLASSES:
            scan.leave_out(where, f"{where} has no known class: {event!r}", split, "unknown label")
            return
        if span[1] <= span[0]:
            scan.leave_out(where, f"{where} has no seconds: {line[:60]!r}", split)
            return
        cut = (folder / f"{video}.mp4", *span)
        values = {"audio": cut, "visual": cut}
        name = f"{video}@{start}-{end}"
        scan.samples.append(Sample(name, split, CLASSES.index(event), values, key=video))


DATASETS.add(Ave.name, Ave())
