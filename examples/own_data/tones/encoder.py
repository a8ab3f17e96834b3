"""An encoder: the mean spectrum of a sound, through two layers."""

import torch
from torch import Tensor, nn

from bmsfed_app.models import Encoder, InputError


class PitchEncoder(Encoder):
    """Features (B, D) of spectrograms (B, 1, F, T): what sounds, not when."""

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        if len(shape) != 3 or vocabulary:
            raise InputError("spectrograms (1, F, T)")
        self.width = width or 64
        self.layers = nn.Sequential(
            nn.Linear(shape[1], 128), nn.ReLU(), nn.Linear(128, self.width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Average over time, then two layers."""
        spectrum = torch.mean(x, dim=(1, 3))
        return self.layers(spectrum)
