"""Videos in real containers, written here with known colours and a known tone."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Audio, Frames
from bmsfed_app.datasets.media import BadSample, frame_times, read_frames, read_sound
from tests.made_media import video


@pytest.mark.parametrize(("name", "codec"), [("clip.flv", "flv1"), ("clip.mp4", "mpeg4")])
def test_frames_come_a_second_apart(name: str, codec: str, tmp_path: Path) -> None:
    path = video(tmp_path / name, 4, codec)
    pixels, aspect = read_frames(path, (32, 32), fewest=3, most=5)
    assert pixels.shape == (4, 3, 32, 32)
    assert aspect == pytest.approx(64 / 48)
    assert pixels.mean((1, 2, 3)) == pytest.approx([0, 40, 80, 120], abs=6)
    cut, _ = read_frames(path, (32, 32), fewest=1, most=5, start=1, end=3)
    assert cut.mean((1, 2, 3)) == pytest.approx([40, 80], abs=6)
    kept = Frames(3, 28, most=5).decode((path, 1.0, 3.0))
    assert int(kept["number"]) == 3
    assert kept["pixels"].shape == (5, 3, 32, 32)


def test_the_sound_of_a_video(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", 3, "mpeg4")
    wave, rate = read_sound(path, 1.0, 2.0)
    assert (len(wave), rate) == (16_000, 16_000)
    assert int(np.abs(np.fft.rfft(wave)).argmax()) == pytest.approx(440, abs=2)
    assert Audio(seconds=10.0).decode((path, 0.0, 3.0))["values"].shape == (257, 1004)


def test_broken_videos_are_named(tmp_path: Path) -> None:
    silent = video(tmp_path / "silent.mp4", 2, "mpeg4", sound=False)
    with pytest.raises(BadSample, match=r"silent\.mp4 has no sound track"):
        read_sound(silent)
    for name, codec in (("cut.mp4", "mpeg4"), ("cut.flv", "flv1")):
        whole = video(tmp_path / name, 6, codec)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(BadSample, match=name.replace(".", r"\.")):
            read_frames(whole, (32, 32), fewest=3, most=5)


def test_times_of_frames() -> None:
    assert frame_times(0, 3.5, 1, 3, 5).tolist() == [0, 1, 2, 3]
    assert frame_times(2, 3.5, 1, 3, 5).tolist() == [2, 2.5, 3]
    assert frame_times(0, 10, 1, 3, 5).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "fault", [ModuleNotFoundError("No module named 'torchaudio'"), OSError("Could not load")]
)
def test_a_torchaudio_that_does_not_load_is_named(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def importing(name: str, *others: Any) -> Any:
        if name.startswith("torchaudio"):
            raise fault
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(DataError, match=rf"{fault}.*: torch is 2\.11.*, torchaudio 2\.11.* pins"):
        Audio().decode((np.zeros(16_000, np.float32), 16_000))
