"""A loader: handwritten digits 0 to 4, and for each a tone whose pitch rises with the digit."""

from pathlib import Path
from typing import Any

from bmsfed_app.datasets import PreparedSource, Sample, Scan
from bmsfed_app.datasets.kinds import Audio, Image, Kind

DIGITS = ("0", "1", "2", "3", "4")


class Tones(PreparedSource):
    """Says which samples there are, and of which kind each modality is."""

    name = "tones"
    summary = "written digits and tones"
    obtain = "python -m tones.make DIR writes it, from scikit-learn's digits."
    layout = "<train or test>/<digit>/<n>.wav and .png"

    def kinds(self, settings: Any) -> dict[str, Kind]:
        """Strong modality first; `encoder` is what an experiment uses unless it says otherwise."""
        picture = Image(32, crop=False, encoder="conv4")
        return {"picture": picture, "tone": Audio(8_000, 0.5, hop=256, encoder="pitch")}

    def classes(self, settings: Any) -> tuple[str, ...]:
        """Class names, in the order of their labels."""
        return DIGITS

    def scan(self, data_dir: Path, settings: Any) -> Scan:
        """List the samples; files are decoded later, once."""
        scan = Scan()
        for wav in sorted(data_dir.glob("*/*/*.wav")):
            split, digit = wav.parts[-3:-1]
            values = {"picture": wav.with_suffix(".png"), "tone": wav}
            name = f"{split}/{digit}/{wav.stem}"
            scan.samples.append(Sample(name, split, DIGITS.index(digit), values))
        return scan
