"""Write a table such as a study leaves behind: python examples/own_table/make.py FOLDER.

Made-up recordings of 24 actors, two of each of four emotions: 35 face units from 0 to 5, 259
numbers of the voice in units of their own, and the sound. Faces tell more than voices do.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.io import wavfile

EMOTIONS = ("angry", "calm", "happy", "sad")
RATE, SECONDS = 8000, 0.3


def make(folder: Path, actors: int = 24, takes: int = 2) -> None:
    """Write samples.csv and wavs/ into a folder."""
    rng = np.random.default_rng(0)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    faces, voices = rng.normal(0, 0.8, (4, 35)), rng.normal(0, 0.25, (4, 259))
    units = 10 ** rng.uniform(-2, 3, 259)  # from hundredths to hundreds
    time = np.arange(int(RATE * SECONDS)) / RATE
    names = [f"au_{i}" for i in range(1, 36)], [f"mfcc_{i}" for i in range(1, 260)]
    with (folder / "samples.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["actor", "label", "speech", *names[0], *names[1]])
        for number in range(actors * 4 * takes):
            actor, emotion = number // (4 * takes), number % 4
            face = np.clip(2 + faces[emotion] + rng.normal(0, 1, 35), 0, 5)
            voice = units * (3 + voices[emotion] + rng.normal(0, 1, 259))
            pitch = 120 + 6 * actor + 25 * emotion
            sound = 0.5 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.1, len(time))
            name = f"wavs/{actor + 1:02}-{number}.wav"
            wavfile.write(folder / name, RATE, np.int16(sound.clip(-1, 1) * 32767))
            numbers = [f"{value:.5g}" for value in (*face, *voice)]
            table.writerow([f"actor-{actor + 1}", EMOTIONS[emotion], name, *numbers])


if __name__ == "__main__":
    make(Path(sys.argv[1]))
