"""Media files made for tests: sound, videos in real containers, whole small data folders."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
from PIL import Image

from bmsfed_app.datasets import ave, crema_d, crisismmd, modelnet40


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """One channel of 16 bits; samples from -1 to 1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def video(path: Path, seconds: int, codec: str, sound: bool = True) -> Path:
    """Second s is of gray level 40 s; the tone has 440 Hz."""
    with av.open(str(path), "w") as file:
        picture = file.add_stream(codec, rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        tone = file.add_stream("aac", rate=16_000) if sound else None
        for i in range(10 * seconds):
            pixels = np.full((48, 64, 3), 40 * (i // 10), dtype=np.uint8)
            file.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(picture.encode(None))
        if tone is not None:
            wave = np.sin(2 * np.pi * 440 * np.arange(16_000 * seconds) / 16_000) * 0.5
            for start in range(0, len(wave), 1024):
                part = wave[None, start : start + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                file.mux(tone.encode(frame))
            file.mux(tone.encode(None))
    return path


def crema(folder: Path) -> None:
    """Two clips of each emotion to train, one to test; a FLV and a WAV each."""
    (folder / "AudioWAV").mkdir(parents=True)
    (folder / "VideoFlash").mkdir()
    for split, takes in (("train", (1, 2)), ("test", (3,))):
        lines = []
        for label, name in enumerate(crema_d.CLASSES):
            for take in takes:
                clip = f"10{take:02d}_IEO_{name}_XX"
                tone = np.sin(np.arange(20_000) * (label + 1) / 20) * 0.4
                write_wav(folder / "AudioWAV" / f"{clip}.wav", tone, 16_000)
                video(folder / "VideoFlash" / f"{clip}.flv", 2, "flv1", sound=False)
                lines.append(f"{clip},{name}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def events(folder: Path) -> None:
    """Three classes of AVE: two videos each to train, one to test."""
    (folder / "AVE").mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label in range(3):
        for number in range(3):
            video(folder / "AVE" / f"v{label}{number}.mp4", 3, "mpeg4")
            line = f"{ave.CLASSES[label]}&v{label}{number}&good&0&{2 + number % 2}"
            lists["test" if number == 2 else "train"].append(line)
    for name, lines in lists.items():
        (folder / f"{name}Set.txt").write_text("\n".join(lines) + "\n")


def shapes(folder: Path) -> None:
    """Two shapes of each of ModelNet10's classes to train, one to test."""
    for label, name in enumerate(modelnet40.CLASSES[10]):
        for number, split in enumerate(("train", "train", "test")):
            for view in (1, 7):
                place = folder / "modelnet40_images_new_12x" / name / split
                place.mkdir(parents=True, exist_ok=True)
                picture = Image.new("L", (32, 32), 20 * label + view)
                picture.save(place / f"{name}_{number:04d}.obj.shaded_v{view:03d}.png")


def crisis(folder: Path) -> None:
    """Eight posts to train and four to test of both labels of the informative task."""
    for part, count in (("train", 8), ("dev", 2), ("test", 4)):
        rows = ["event_name\ttweet_id\timage_id\ttweet_text\timage\tlabel"]
        for i in range(count):
            post, label = f"{part}{i}", crisismmd.CLASSES["informative"][i % 2]
            image = f"data_image/{post}.jpg"
            (folder / "data_image").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), (30 * i, 0, 0)).save(folder / image)
            rows.append(f"flood\t{post}\t{post}_0\tRT water {i} https://t.co/x\t{image}\t{label}")
        file = folder / f"task_informative_text_img_agreed_lab_{part}.tsv"
        file.write_text("\n".join(rows) + "\n")
