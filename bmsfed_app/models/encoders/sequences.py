"""Encoders of sequences and of token ids, trained from scratch.

Shape legend: B batch, T steps of a sequence, F features of a step, L tokens of a text, D feature
width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bmsfed_app.models.encoders.base import (
    ENCODERS,
    Encoder,
    InputError,
    masked_mean,
    padded_attention,
)

SEQUENCES = "sequences (T, F) of at least two steps"
TOKENS = "token ids (L,) with a vocabulary"


@ENCODERS.register("gru")
class GRUEncoder(Encoder):
    """Batch norm on the features, then the mean state of a GRU; D = 128 by default.

    The norm makes raw sensor units do: no statistics of the data are needed.

    Parameters
    ----------
    shape : tuple of int
        One input, (T, F), T at least 2.
    width : int, default 0
        D; 0 takes 128.

    Raises
    ------
    InputError
        If the input is something else.
    """

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        if not _is_sequence(shape, vocabulary):
            raise InputError(SEQUENCES)
        self.width = width or 128
        self.norm = nn.BatchNorm1d(shape[1])
        self.gru = nn.GRU(shape[1], self.width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Encode sequences (B, T, F) as features (B, D)."""
        states: Tensor = self.gru(self.norm(x.transpose(1, 2)).transpose(1, 2))[0]
        return states.mean(dim=1)


@ENCODERS.register("tiny-transformer")
class TinyTransformer(Encoder):
    """Two transformer layers with four heads and no dropout; the mean of what they return.

    Sequences go through batch norm and a linear layer first, token ids through an embedding.
    Positions are sines (Vaswani et al., NeurIPS 2017, Sect. 3.5), so inputs may have any length.
    Padding is neither attended to nor averaged; a text of padding only has features of 0.

    Parameters
    ----------
    shape : tuple of int
        One input: (T, F), T at least 2, or (L,) where there is a vocabulary.
    vocabulary : int, default 0
        Token ids are below it; 0: the input is a sequence.
    width : int, default 0
        D, a multiple of 4; 0 takes 128.

    Raises
    ------
    InputError
        If the input is something else.
    ValueError
        If the width is no multiple of 4.
    """

    own_initialisation = True

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        if not (_is_sequence(shape, vocabulary) or (vocabulary and len(shape) == 1)):
            raise InputError(f"{SEQUENCES}, or {TOKENS}")
        self.width = width or 128
        if self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4, its number of heads")
        self.vocabulary = vocabulary
        if vocabulary:
            self.embed: nn.Module = nn.Embedding(vocabulary, self.width, padding_idx=0)
        else:
            self.norm = nn.BatchNorm1d(shape[1])
            self.embed = nn.Linear(shape[1], self.width)
        layer = nn.TransformerEncoderLayer(
            self.width,
            nhead=4,
            dim_feedforward=2 * self.width,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(self.width), enable_nested_tensor=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode sequences (B, T, F) or token ids (B, L) as features (B, D)."""
        positions = _sines(x.shape[1], self.width, x.device)
        if not self.vocabulary:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
            states: Tensor = self.layers(self.embed(x) + positions)
            return states.mean(dim=1)
        there, attended = padded_attention(x)
        states = self.layers(self.embed(x) + positions, src_key_padding_mask=~attended)
        return masked_mean(states, there)


@ENCODERS.register("text-hash")
class TextHash(Encoder):
    """The mean embedding of the tokens that are no padding, then two layers; D = 128 by default.

    For token ids that are hashes of words. A text of padding only has the features of a mean of 0.

    Parameters
    ----------
    shape : tuple of int
        One input, (L,).
    vocabulary : int
        Token ids are below it.
    width : int, default 0
        D, and the width of the embedding; 0 takes 128.

    Raises
    ------
    InputError
        If the input is something else.
    """

    def __init__(self, shape: tuple[int, ...], vocabulary: int = 0, width: int = 0) -> None:
        super().__init__()
        if not vocabulary or len(shape) != 1:
            raise InputError(TOKENS)
        self.width = width or 128
        self.embed = nn.EmbeddingBag(vocabulary, self.width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(
            nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width)
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids (B, L) as features (B, D)."""
        features: Tensor = self.layers(self.embed(ids))
        return features


def _is_sequence(shape: tuple[int, ...], vocabulary: int) -> bool:
    # One step of one sample has no variance for the batch norm.
    return len(shape) == 2 and shape[0] >= 2 and not vocabulary


def _sines(steps: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines (steps, width) of each position at falling frequencies."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(1e4) / width))
    angle = torch.arange(steps, device=device).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
