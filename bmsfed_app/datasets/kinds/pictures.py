"""Pictures and frames of videos.

Shape legend: b batch, M frames kept, C channels, S side of a kept picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmsfed_app.datasets import augment, media
from bmsfed_app.datasets.base import constant, sent
from bmsfed_app.datasets.kinds.base import Kind, Rows
from bmsfed_app.datasets.media import BadSample

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Image(Kind):
    """A picture, (channels, side, side), normalised by ImageNet's statistics.

    Kept as a square, whatever its aspect, in 8 bits. With ``crop``, 8/7 of the side, and training
    sees random resized crops (area 8 to 100 %, aspect 3:4 to 4:3 of the picture as it was) and
    flips. Values: a file.
    """

    side: int = 224
    channels: int = 3
    crop: bool = True
    encoder: str = "resnet18"
    parts: tuple[str, ...] = ("pixels", "aspect")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.side, self.side)

    def decode(self, value: Any) -> Rows:
        size = _kept(self.side, self.crop)
        pixels, aspect = media.read_image(Path(value), size, self.channels)
        return {"pixels": pixels, "aspect": np.array(aspect, dtype=np.float32)}

    def render(self, *rows: Tensor) -> Tensor:
        return augment.resized(_normal(rows[0]), self.side)

    def augment(self, *rows: Any) -> Tensor:
        pixels, aspect, rng = rows
        if not self.crop:
            return self.render(pixels)
        return augment.random_resized_crop(_normal(pixels), aspect, self.side, rng)


@dataclass(frozen=True)
class Frames(Kind):
    """Frames of a video, (count, channels, side, side), normalised as :class:`Image`.

    Kept are up to ``most`` frames at one every ``spacing`` seconds (at least ``count``), as
    ``Image`` keeps pictures. Training draws ``count`` of them at random, in order, each with its
    own random crop and flip; otherwise they are evenly spaced. Values: a video, (video, start s,
    end s), or a list of pictures.
    """

    count: int = 3
    side: int = 224
    channels: int = 3
    most: int = 5
    spacing: float = 1.0
    crop: bool = True
    encoder: str = "resnet18"
    parts: tuple[str, ...] = ("pixels", "number", "aspect")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.channels, self.side, self.side)

    def decode(self, value: Any) -> Rows:
        size = _kept(self.side, self.crop)
        if isinstance(value, list):
            if not value:
                raise BadSample("a sample has no frames")
            chosen = value[: self.most] if len(value) <= self.most else _spread(value, self.most)
            read = [media.read_image(Path(path), size, self.channels) for path in chosen]
            pixels, aspect = np.stack([p for p, _ in read]), read[0][1]
        else:
            path, *span = value if isinstance(value, tuple) else (value,)
            bounds = dict(zip(("start", "end"), span, strict=False))
            fewest = min(self.count, self.most)
            pixels, aspect = media.read_frames(
                Path(path), size, spacing=self.spacing, fewest=fewest, most=self.most, **bounds
            )
        number = len(pixels)
        padding = np.repeat(pixels[-1:], self.most - number, axis=0)
        return {
            "pixels": np.concatenate([pixels, padding]),
            "number": np.array(number, dtype=np.int16),
            "aspect": np.array(aspect, dtype=np.float32),
        }

    def render(self, *rows: Tensor) -> Tensor:
        pixels, number = rows[0], rows[1].long()
        steps = torch.arange(self.count, device=pixels.device)
        # Evenly spaced: the middle of each of `count` equal stretches.
        chosen = (2 * steps + 1) * number[:, None] // (2 * self.count)
        frames = _normal(_take(pixels, chosen)).flatten(0, 1)
        return augment.resized(frames, self.side).unflatten(0, (-1, self.count))

    def augment(self, *rows: Any) -> Tensor:
        pixels, number, aspect, rng = rows
        keys = sent(torch.rand(len(pixels), self.most, generator=rng), pixels.device)
        keys = keys.masked_fill(torch.arange(self.most, device=pixels.device) >= number[:, None], 2)
        chosen = keys.argsort(dim=1)[:, : self.count]
        # Fewer frames than wanted: some come again.
        chosen = torch.minimum(chosen.sort(dim=1).values, number[:, None].long() - 1)
        frames = _normal(_take(pixels, chosen)).flatten(0, 1)
        if self.crop:
            aspects = aspect.repeat_interleave(self.count)
            frames = augment.random_resized_crop(frames, aspects, self.side, rng)
        else:
            frames = augment.resized(frames, self.side)
        return frames.unflatten(0, (-1, self.count))


def _kept(side: int, crop: bool) -> tuple[int, int]:
    """Height and width that a picture is kept at: a crop of most of it needs no enlarging."""
    return (side * 8 // 7,) * 2 if crop else (side, side)


def _spread(values: Sequence[Any], number: int) -> list[Any]:
    return [values[i * len(values) // number] for i in range(number)]


def _take(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Rows (b, k, ...) of frames (b, M, ...) at (b, k)."""
    return pixels[torch.arange(len(pixels), device=pixels.device)[:, None], chosen]


def _normal(pixels: Tensor) -> Tensor:
    """Normalise pictures (..., C, S, S), uint8; gray ones by ImageNet's mean gray."""
    channels = pixels.shape[-3]
    mean, std = (
        (IMAGENET_MEAN, IMAGENET_STD)
        if channels == 3
        else ((0.449,) * channels, (0.226,) * channels)
    )
    shape = (channels, 1, 1)
    centre, scale = (constant(v, pixels.device).view(shape) for v in (mean, std))
    return (pixels.float() / 255 - centre) / scale
