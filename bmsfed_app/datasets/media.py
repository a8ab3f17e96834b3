"""Reading media files: sound, pictures, video, text, tables of numbers.

Every reader raises :class:`BadSample` with the file, the reason and, where there is one, the
remedy. WAV needs nothing besides SciPy; other sound and all video are read by PyAV (FFmpeg), the
``media`` extra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmsfed_app.datasets.base import DataError

Pixels = NDArray[np.uint8]
Wave = NDArray[np.float32]


class BadSample(ValueError):
    """One sample cannot be used; the message names the file and the reason."""


# --- sound --------------------------------------------------------------------------------------


def read_sound(path: Path, start: float = 0.0, end: float = math.inf) -> tuple[Wave, int]:
    """Read a file's sound as one channel.

    Parameters
    ----------
    path : Path
        A WAV file, or anything that FFmpeg reads, such as a video.
    start, end : float
        The seconds to keep.

    Returns
    -------
    wave : array (samples,), float32
        Mean of the channels; full scale is 1.
    rate : int
        Samples per second.

    Raises
    ------
    BadSample
        If the file is missing, cannot be decoded, or has no sound in these seconds.
    """
    wave, rate = _read_wav(path) if path.suffix.lower() == ".wav" else _decode_sound(path)
    last = len(wave) if math.isinf(end) else round(end * rate)
    kept = wave[round(start * rate) : last]
    if not len(kept):
        where = "" if math.isinf(end) and not start else f" between {start:g} s and {end:g} s"
        raise BadSample(f"{path} has no sound{where}")
    if not np.isfinite(kept).all():
        raise BadSample(f"{path} has sound values that are not finite")
    return kept, rate


def _read_wav(path: Path) -> tuple[Wave, int]:
    from scipy.io import wavfile

    with _reading(path):
        rate, data = wavfile.read(path)
    if data.dtype == np.uint8:
        scaled = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        scaled = data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
    else:
        scaled = data.astype(np.float32)
    return (scaled if scaled.ndim == 1 else scaled.mean(axis=1)), int(rate)


def _decode_sound(path: Path) -> tuple[Wave, int]:
    av = _av()
    with _reading(path), av.open(str(path)) as container:
        if not container.streams.audio:
            raise BadSample(f"{path} has no sound track")
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        chunks = [
            f.to_ndarray()[0]
            for frame in container.decode(stream)
            for f in resampler.resample(frame)
        ]
        chunks += [f.to_ndarray()[0] for f in resampler.resample(None)]
    if not chunks:
        raise BadSample(f"{path} has a sound track without sound")
    return np.concatenate(chunks).astype(np.float32), rate


# --- pictures -----------------------------------------------------------------------------------


def read_image(path: Path, size: tuple[int, int], channels: int = 3) -> tuple[Pixels, float]:
    """Read a picture and resize it, whatever its aspect, on white where it is transparent.

    Parameters
    ----------
    path : Path
    size : (int, int)
        Height and width.
    channels : {1, 3}

    Returns
    -------
    pixels : array (channels, height, width), uint8
    aspect : float
        Width over height of the file's picture.

    Raises
    ------
    BadSample
        If the file is missing or no picture, or is cut short.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with _reading(path), Image.open(path) as file:
            aspect = file.width / file.height
            image: Image.Image = file
            if "A" in file.getbands() or "transparency" in file.info:
                white = Image.new("RGBA", file.size, "white")
                image = Image.alpha_composite(white, file.convert("RGBA"))
            image = image.convert("RGB" if channels == 3 else "L")
            small = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        raise BadSample(f"{path} is not a picture") from None
    return _channels_first(small), aspect


def _channels_first(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


# --- video --------------------------------------------------------------------------------------


def frame_times(
    start: float, end: float, spacing: float, fewest: int, most: int
) -> NDArray[np.float64]:
    """Return when to take frames of a clip: every ``spacing`` seconds from its start.

    A clip too short for ``fewest``, or too long for ``most``, gets that many, evenly spaced.
    """
    # A last frame a tenth of a spacing before the end is not worth having.
    number = max(math.ceil((end - start) / spacing - 0.1), 1)
    if not fewest <= number <= most:
        number = min(max(number, fewest), most)
        spacing = (end - start) / number
    return start + spacing * np.arange(number, dtype=np.float64)


def read_frames(
    path: Path,
    size: tuple[int, int],
    *,
    spacing: float = 1.0,
    fewest: int = 1,
    most: int = 10,
    start: float = 0.0,
    end: float = math.inf,
) -> tuple[Pixels, float]:
    """Read frames of a video, resized whatever its aspect.

    Parameters
    ----------
    path : Path
    size : (int, int)
        Height and width.
    spacing : float
        Seconds between frames.
    fewest, most : int
        Bounds of the number of frames; see :func:`frame_times`.
    start, end : float
        The seconds to take frames from.

    Returns
    -------
    pixels : array (frames, 3, height, width), uint8
    aspect : float
        Width over height of the video.

    Raises
    ------
    BadSample
        If the file is missing, cannot be decoded, has no picture, or ends a second or more
        before it says, or before ``end``.
    """
    av = _av()
    with _reading(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise BadSample(f"{path} has no picture track")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        length = _length(container, stream)
        until = min(end, length)
        times = frame_times(start, until, spacing, fewest, most)
        frames: list[Pixels] = []
        first, last, aspect = None, 0.0, 1.0
        for frame in container.decode(stream):
            seconds = float(frame.time or 0.0)
            first = seconds if first is None else first
            last, aspect = seconds - first, frame.width / frame.height
            due = int(np.searchsorted(times, last + 1e-3, side="right")) - len(frames)
            if due > 0:
                small = frame.reformat(size[1], size[0], "rgb24", interpolation="BILINEAR")
                frames += [_channels_first(small.to_ndarray())] * due
            if len(frames) == len(times) and last >= until - 1:
                break
    if not frames:
        raise BadSample(f"{path} has no picture between {start:g} s and {until:g} s")
    if last < until - 1:
        raise BadSample(f"{path} is cut short: it ends at {last:.1f} s of {until:.1f} s")
    frames += [frames[-1]] * (len(times) - len(frames))
    return np.stack(frames), aspect


def _length(container: Any, stream: Any) -> float:
    """Seconds of a video by its header; several frames without one are taken as a second."""
    if container.duration:
        return float(container.duration) / 1e6
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return 1.0


# --- text and numbers ---------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises
    ------
    BadSample
        If the file is missing or in another encoding.
    """
    with _reading(path):
        return path.read_text(encoding="utf-8-sig")


def read_array(path: Path) -> NDArray[Any]:
    """Read an array from a ``.npy`` file, or a table of numbers from ``.csv`` or ``.txt``.

    Raises
    ------
    BadSample
        If the file is missing or holds no numbers.
    """
    with _reading(path):
        if path.suffix == ".npy":
            loaded: NDArray[Any] = np.load(path, allow_pickle=False)
        else:
            loaded = np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    return loaded


def read_lines(path: Path, remedy: str) -> list[str]:
    """Read the lines of a list that a data set comes with.

    Raises
    ------
    DataError
        If it is missing or not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"no file {path}: {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}): {remedy}") from None


def first_dir(folder: Path, names: Sequence[str], remedy: str) -> Path:
    """Return the first of some folders that is there.

    Raises
    ------
    DataError
        If none is.
    """
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(f"no folder {' or '.join(names)} in {folder}: {remedy}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except BadSample:
        raise
    except FileNotFoundError:
        raise BadSample(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise BadSample(f"{path} is not text in UTF-8 (byte {error.start}): convert it") from None
    except Exception as error:
        # Codecs raise whatever they like; what it was is in the message.
        if isinstance(error, DataError) or type(error).__name__ == "UnidentifiedImageError":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadSample(f"{path} cannot be decoded ({reason})") from None


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise DataError(
            "video, and sound other than WAV, is read by PyAV: pip install 'bmsfed[media]'"
        ) from None
    return av
