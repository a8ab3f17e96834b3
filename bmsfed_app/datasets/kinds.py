"""Kinds of modality: how each is decoded once, kept, and turned into model inputs.

A data set names a kind for each of its modalities; the rest (preparation, cache, batches) is
shared. Shape legend: b batch, T time steps, F features or frequencies, M frames kept, C channels,
S side of a kept picture.
"""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bmsfed_app.datasets import augment, media
from bmsfed_app.datasets.base import DataError, Renderer
from bmsfed_app.datasets.media import BadSample

Rows = dict[str, NDArray[Any]]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Kind(ABC):
    """One modality of a data set."""

    #: Names of what is kept of a sample.
    parts: tuple[str, ...] = ("values",)
    #: Encoder where the configuration names none.
    encoder: str
    #: Number of token ids; 0 where inputs are not token ids.
    vocabulary: int = 0

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's model input."""

    @abstractmethod
    def decode(self, value: Any) -> Rows:
        """Turn a sample's value (a file, a text, an array) into what is kept, by part.

        Every sample's arrays have the same shapes and types.

        Raises
        ------
        BadSample
            If it cannot be used.
        """

    @abstractmethod
    def render(self, *rows: Tensor) -> Tensor:
        """Turn kept parts, each (b, ...), into model inputs (b, *shape)."""

    #: As ``render``, with a generator at the end: what training sees; None for the same.
    augment: Any = None

    def caption(self, value: Any) -> str:
        """Return what a reader would want to see of a value in words; empty for most kinds."""
        return ""

    def stores(self, modality: str) -> tuple[str, ...]:
        """Names of this kind's stores for a modality."""
        return tuple(f"{modality}.{part}" for part in self.parts)

    def renderer(self, modality: str) -> Renderer:
        """Return how batches of a modality are made."""
        return Renderer(self.stores(modality), self.render, self.augment)


# --- sound --------------------------------------------------------------------------------------


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
        import torchaudio.functional as audio  # loads compiled parts

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


# --- pictures -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image(Kind):
    """A picture, (channels, side, side), normalised by ImageNet's statistics.

    Kept at ``kept`` pixels a side, whatever its aspect, in 8 bits. With ``crop``, training sees
    random resized crops (area 8 to 100 %, aspect 3:4 to 4:3 of the picture as it was) and flips.
    Values: a file.
    """

    side: int = 224
    channels: int = 3
    kept: int = 256
    crop: bool = True
    encoder: str = "resnet18"
    parts: tuple[str, ...] = ("pixels", "aspect")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.side, self.side)

    def decode(self, value: Any) -> Rows:
        kept = self.kept if self.crop else self.side
        pixels, aspect = media.read_image(Path(value), (kept, kept), self.channels)
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
    kept: int = 256
    most: int = 5
    spacing: float = 1.0
    crop: bool = True
    encoder: str = "resnet18"
    parts: tuple[str, ...] = ("pixels", "number", "aspect")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.channels, self.side, self.side)

    def decode(self, value: Any) -> Rows:
        size = (self.kept, self.kept) if self.crop else (self.side, self.side)
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
        keys = torch.rand(len(pixels), self.most, generator=rng).to(pixels.device)
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
    centre = torch.tensor(mean, device=pixels.device).view(shape)
    scale = torch.tensor(std, device=pixels.device).view(shape)
    return (pixels.float() / 255 - centre) / scale


# --- text ---------------------------------------------------------------------------------------

#: Words, and single signs that carry meaning: !, ?, %, emoji.
_WORD = re.compile(r"""\w+(?:['’]\w+)*|[^\w\s.,;:'"’“”()\[\]-]""")
_URL = re.compile(r"https?://\S+|www\.\S+")


@dataclass(frozen=True)
class Text(Kind):
    """Text as token ids (tokens,), 0 where it is over.

    Cleaned first: a leading RT, URLs and # signs go. ``tokenizer`` "hash" takes lower-case words
    and signs, and hashes each to one of ``buckets`` ids; "hf:NAME" takes the tokenizer of a Hugging
    Face model (name or folder), its ids plus 1. Values: a text, or a ``Path`` to a file of it.
    """

    tokens: int = 40
    tokenizer: str = "hash"
    buckets: int = 8192
    encoder: str = "text-hash"
    parts: tuple[str, ...] = ("ids",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tokens,)

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        if self.tokenizer == "hash":
            return self.buckets
        return len(_hf_tokenizer(self.tokenizer.removeprefix("hf:"))) + 1

    def decode(self, value: Any) -> Rows:
        ids = self._ids(self.caption(value))[: self.tokens]
        return {"ids": np.array(ids + [0] * (self.tokens - len(ids)), dtype=np.int32)}

    def caption(self, value: Any) -> str:
        """Return the text, cleaned."""
        return clean(media.read_text(value) if isinstance(value, Path) else str(value))

    def _ids(self, text: str) -> list[int]:
        if self.tokenizer == "hash":
            words = _WORD.findall(text.lower())
            return [1 + zlib.crc32(w.encode()) % (self.buckets - 1) for w in words]
        tokenizer = _hf_tokenizer(self.tokenizer.removeprefix("hf:"))
        found = tokenizer(text, truncation=True, max_length=self.tokens)["input_ids"]
        return [1 + int(i) for i in found]

    def render(self, *rows: Tensor) -> Tensor:
        return rows[0].long()


def clean(text: str) -> str:
    """Drop a leading RT, URLs and the signs # from a post."""
    return _URL.sub(" ", re.sub(r"^\s*RT\b", " ", text)).replace("#", " ").strip()


@lru_cache(maxsize=4)
def _hf_tokenizer(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise DataError(
            "a Hugging Face tokenizer needs transformers: pip install 'bmsfed[text]'"
        ) from None
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"no tokenizer '{name}' ({reason}): name a Hugging Face model or its local folder"
        ) from None


# --- numbers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series(Kind):
    """A series of measurements, (steps, features), stretched to its length by interpolation.

    Values: an array (T, features), or a ``.npy``, ``.csv`` or ``.txt`` file of one.
    """

    steps: int
    features: int
    encoder: str = "gru"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, self.features)

    def decode(self, value: Any) -> Rows:
        name = str(value) if isinstance(value, str | Path) else "a series"
        array = media.read_array(Path(value)) if isinstance(value, str | Path) else value
        if array.ndim != 2 or array.shape[1] != self.features or not len(array):
            raise BadSample(f"{name} is {array.shape}, expected (steps, {self.features})")
        values = torch.from_numpy(np.asarray(array, dtype=np.float32))
        if not values.isfinite().all():
            raise BadSample(f"{name} has values that are not finite")
        stretched = F.interpolate(
            values.T[None], size=self.steps, mode="linear", align_corners=True
        )
        return {"values": stretched[0].T.contiguous().numpy()}

    def render(self, *rows: Tensor) -> Tensor:
        return rows[0].float()


@dataclass(frozen=True)
class Array(Kind):
    """An array of a fixed shape, (values - offset) / scale as it enters the model.

    Kept in ``dtype``. Values: an array, or a ``.npy``, ``.csv`` or ``.txt`` file of one.
    """

    size: tuple[int, ...]
    dtype: str = "float32"
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    encoder: str = "mlp"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def decode(self, value: Any) -> Rows:
        name = str(value) if isinstance(value, str | Path) else "an array"
        array = np.asarray(
            media.read_array(Path(value)) if isinstance(value, str | Path) else value
        )
        if array.size != np.prod(self.size):
            raise BadSample(f"{name} is {array.shape}, expected {self.size}")
        if not np.isfinite(array).all():
            raise BadSample(f"{name} has values that are not finite")
        return {"values": array.reshape(self.size).astype(self.dtype)}

    def render(self, *rows: Tensor) -> Tensor:
        values = rows[0]
        offset, scale = (torch.tensor(v, device=values.device) for v in (self.offset, self.scale))
        return (values.float() - offset) / scale
