"""Write the data set into a folder: ``python -m tones.make DIR``."""

import sys
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

RATE, SECONDS = 8_000, 0.5


def make(folder: Path, train: int = 60, test: int = 20) -> None:
    """Write so many samples per digit: an 8-bit picture and half a second of noisy tone each."""
    rng = np.random.default_rng(0)
    pictures, labels = load_digits(return_X_y=True)
    time = np.arange(int(RATE * SECONDS)) / RATE
    for digit in range(5):
        own = pictures[labels == digit][: train + test].reshape(-1, 8, 8)
        for number, picture in enumerate(own):
            place = folder / ("train" if number < train else "test") / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((picture * 15.9).astype(np.uint8)).save(place / f"{number:03}.png")
            pitch = 220 * 2 ** (digit / 12 + rng.normal(0, 0.05))  # semitones, sung well off
            sound = 0.3 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.3, len(time))
            with wave.open(str(place / f"{number:03}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]))
