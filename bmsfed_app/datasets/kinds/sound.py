"""Sound as spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmsfed_app.datasets import media
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds.base import Kind, Rows


def _torchaudio() -> Any:
    """Return ``torchaudio.functional``, whose compiled parts load beside one torch only."""
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:
        there = {p: _version(p) for p in ("torch", "torchaudio")}
        raise DataError(
            f"sound needs torchaudio, which does not load ({error}): torch is {there['torch']}, "
            f"torchaudio {there['torchaudio']}; install both as pyproject.toml pins them"
        ) from None
    return torchaudio.functional


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Audio(Kind):
    """Sound as a standardised log-spectrogram, (1, window / 2 + 1, frames), kept in 16 bits.

    The sound is made mono, resampled, repeated or cut to its length and clipped to [-1, 1]; power
    spectrogram by Hann windows without centring; log(S + 1e-7); mean 0 and deviation 1 per sample
    (silence becomes 0). Values: a file, (file, start s, end s) or (samples, rate).

    Attributes
    ----------
    rate : int
        Samples per second.
    seconds : float
    window, hop : int
        Of the spectrogram, in samples.
    """

    rate: int = 16_000
    seconds: float = 3.0
    window: int = 512
    hop: int = 159
    encoder: str = "resnet18-audio"

    @property
    def shape(self) -> tuple[int, ...]:
        frames = (round(self.rate * self.seconds) - self.window) // self.hop + 1
        return (1, self.window // 2 + 1, frames)

    def decode(self, value: Any) -> Rows:
        audio = _torchaudio()
        wave, rate = self._wave(value)
        samples = torch.from_numpy(np.ascontiguousarray(wave))
        if rate != self.rate:
            samples = audio.resample(samples, rate, self.rate)
        wanted = round(self.rate * self.seconds)
        samples = samples.repeat(-(-wanted // len(samples)))[:wanted].clamp(-1, 1)
        window = torch.hann_window(self.window)
        power = audio.spectrogram(
            samples, 0, window, self.window, self.hop, self.window, 2.0, False, center=False
        )
        log = (power + 1e-7).log()
        deviation = log.std(correction=0)
        standard = (log - log.mean()) / deviation if deviation > 1e-4 else torch.zeros_like(log)
        return {"values": standard.half().numpy()}

    @staticmethod
    def _wave(value: Any) -> tuple[NDArray[np.float32], int]:
        if isinstance(value, tuple) and not isinstance(value[0], str | Path):
            return value
        path, *span = value if isinstance(value, tuple) else (value,)
        return media.read_sound(Path(path), *span)

    def render(self, *rows: Tensor) -> Tensor:
        return rows[0][:, None].float()
