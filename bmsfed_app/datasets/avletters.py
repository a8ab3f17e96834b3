"""AVLetters: the letters A to Z, spoken three times by ten talkers (Matthews et al., 2002).

Read from ``avletters_compact.npz``, in which clips of different lengths lie one after the other:
``mfcc`` and ``lips`` with the offsets ``mfcc_off`` and ``lips_off``, and per clip ``name``,
``letter``, ``rep`` and ``talker``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Array, Kind, Series
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, PreparedSettings

FILE = "avletters_compact.npz"


class AvLettersSettings(PreparedSettings):
    """Settings of ``avletters``."""

    steps: int = Field(48, ge=2, description="sound features over a clip, after stretching")
    frames: int = Field(12, ge=1, description="lip pictures a clip, evenly spaced")


class AvLetters(PreparedSource):
    """780 clips; the third repetition is the test split, natural clients are the talkers."""

    name = "avletters"
    summary = "spoken letters: MFCCs and lips, 26 classes, ten talkers"
    obtain = "AVLetters (Matthews et al., University of East Anglia), on request; for research."
    layout = f"{FILE}: mfcc, mfcc_off, lips, lips_off, name, letter, rep, talker"
    official: ClassVar = {"train": 520, "test": 260}
    natural = "talkers"
    settings = AvLettersSettings

    def kinds(self, settings: AvLettersSettings) -> dict[str, Kind]:
        """Sound first: it is the stronger one. Lip pictures are the channels of one picture."""
        return {
            "audio": Series(settings.steps, 26),
            "lips": Array((settings.frames, 30, 40), "uint8", 128.0, 64.0, encoder="conv4"),
        }

    def classes(self, settings: AvLettersSettings) -> tuple[str, ...]:
        """The letters."""
        return tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def scan(self, data_dir: Path, settings: AvLettersSettings) -> Scan:
        """List the clips of the file."""
        z = self._read(data_dir / FILE)
        scan = Scan()
        for i, name in enumerate(z["name"]):
            split = "test" if z["rep"][i] == 3 else "train"
            lips = z["lips"][z["lips_off"][i] : z["lips_off"][i + 1]]
            sound = z["mfcc"][z["mfcc_off"][i] : z["mfcc_off"][i + 1]]
            if not len(lips) or not len(sound):
                reason = f"clip {name} in {FILE} is empty"
                scan.leave_out(str(name), reason, split, "cannot be decoded")
                continue
            chosen = lips[np.arange(settings.frames) * len(lips) // settings.frames]
            values = {"audio": sound, "lips": chosen}
            label, talker = int(z["letter"][i]), str(z["talker"][i])
            scan.samples.append(Sample(str(name), split, label, values, talker, str(name)))
        return scan

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in self.layout.partition(": ")[2].split(", ")}
        except FileNotFoundError:
            raise DataError(f"no file {path}: '{self.name}' needs {self.layout}") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {path} ({error}): get the file again") from None


DATASETS.add(AvLetters.name, AvLetters())
