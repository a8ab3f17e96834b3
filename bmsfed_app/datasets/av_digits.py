"""AV-digits: spoken digits (FSDD) paired with written ones (MNIST) of the same class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import Field

from bmsfed_app.datasets import cg_mnist
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.colored import MNIST_MEAN, MNIST_STD
from bmsfed_app.datasets.kinds import Array, Audio, Kind
from bmsfed_app.datasets.media import first_dir
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, PreparedSettings


class AvDigitsSettings(PreparedSettings):
    """Settings of ``av-digits``."""

    pairs: int = Field(4, ge=1, le=100, description="written digits that each recording meets")


class AvDigits(PreparedSource):
    """Recordings 0 to 4 of a speaker and digit are the test split (FSDD's rule), with test digits.

    Each recording is paired with ``pairs`` written digits of its class, no digit twice. Natural
    clients are the speakers.
    """

    name = "av-digits"
    summary = "spoken (FSDD) and written (MNIST) digits, six speakers"
    obtain = (
        "github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0), and MNIST (CC BY-SA 3.0)."
    )
    layout = "recordings/<digit>_<speaker>_<number>.wav, and MNIST's four idx files, also in mnist/"
    natural = "speakers"
    settings = AvDigitsSettings

    def kinds(self, settings: AvDigitsSettings) -> dict[str, Kind]:
        """The written digit first: it is the stronger one. A second of sound at 8 kHz, 129 x 97."""
        return {
            "written": Array(
                (1, 28, 28), "uint8", 255 * MNIST_MEAN, 255 * MNIST_STD, encoder="conv4"
            ),
            "spoken": Audio(8000, 1.0, 256, 80, encoder="conv4"),
        }

    def classes(self, settings: AvDigitsSettings) -> tuple[str, ...]:
        """The ten digits."""
        return tuple("0123456789")

    def scan(self, data_dir: Path, settings: AvDigitsSettings) -> Scan:
        """List the recordings, each as often as it is paired."""
        folder = first_dir(data_dir, ["recordings"], f"'{self.name}' needs {self.layout}")
        written = _written(data_dir)
        taken: Counter[tuple[str, int]] = Counter()
        scan = Scan()
        for file in sorted(folder.glob("*.wav")):
            digit, _, rest = file.stem.partition("_")
            speaker, _, number = rest.rpartition("_")
            if not (digit.isdigit() and len(digit) == 1 and number.isdigit() and speaker):
                scan.leave_out(file.stem, f"{file} is not named <digit>_<speaker>_<number>.wav")
                continue
            label, split = int(digit), "test" if int(number) < 5 else "train"
            for pair in range(settings.pairs):
                pool = written[split][label]
                if taken[split, label] == len(pool):
                    raise DataError(
                        f"pairs: {settings.pairs} need more written {label}s than exist"
                    )
                image = pool[taken[split, label]]
                taken[split, label] += 1
                values = {"written": image[None], "spoken": file}
                name = f"{file.stem}-{pair}"
                scan.samples.append(Sample(name, split, label, values, speaker, file.stem))
        if not scan.samples:
            raise DataError(f"no .wav file in {folder}: '{self.name}' needs {self.layout}")
        return scan


DATASETS.add(AvDigits.name, AvDigits())


def _written(data_dir: Path) -> dict[str, list[np.ndarray]]:
    """MNIST's digits by split and class, each (n, 28, 28), in the official order."""
    found = {}
    folder = data_dir / "mnist" if (data_dir / "mnist").is_dir() else data_dir
    for split, files in cg_mnist.FILES.items():
        images, labels = (
            cg_mnist.read_idx(cg_mnist.find(f.name, folder), f, folder).numpy() for f in files
        )
        found[split] = [images[labels == digit] for digit in range(10)]
    return found
