"""CG-MNIST: MNIST as a colored/gray pair (the paper, Sect. 4.1).

Expects MNIST's four idx files (Yann LeCun, Corinna Cortes; CC BY-SA 3.0), plain or ``.gz``, in
the data folder, its ``raw/`` or its ``MNIST/raw/``. ``bmsfed data download cg-mnist`` fetches
them through torchvision.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bmsfed_app.datasets.base import DataError, Split
from bmsfed_app.datasets.colored import ColoredPair, ColorSettings, pair_split
from bmsfed_app.datasets.source import DATASETS


@dataclass(frozen=True)
class IdxFile:
    """One of MNIST's files: its name, shape and the CRC-32 of its plain bytes."""

    name: str
    shape: tuple[int, ...]
    crc: int


#: The official files by split: images, labels.
FILES = {
    "train": (
        IdxFile("train-images-idx3-ubyte", (60_000, 28, 28), 0xE9F4D8B3),
        IdxFile("train-labels-idx1-ubyte", (60_000,), 0xE0CB4AD2),
    ),
    "test": (
        IdxFile("t10k-images-idx3-ubyte", (10_000, 28, 28), 0x91373BDF),
        IdxFile("t10k-labels-idx1-ubyte", (10_000,), 0x4AB9EFF9),
    ),
}


def download(data_dir: Path) -> None:
    """Download MNIST into ``data_dir/MNIST/raw`` with torchvision, and check it.

    Raises
    ------
    DataError
        If it cannot be had, or what is there is not MNIST.
    """
    from torchvision.datasets import MNIST  # loads torchvision's compiled parts

    try:
        MNIST(data_dir, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"MNIST could not be downloaded into {data_dir} ({' '.join(str(error).split())}): "
            "check the connection and the folder, or put the four files there yourself"
        ) from None
    for file in (*FILES["train"], *FILES["test"]):
        read_idx(find(file.name, data_dir), file, data_dir)


def find(name: str, data_dir: Path) -> Path:
    """Return where a file lies, plain before ``.gz``.

    Raises
    ------
    DataError
        If it is in none of the folders.
    """
    folders = (data_dir, data_dir / "raw", data_dir / "MNIST" / "raw")
    for path in (folder / f"{name}{end}" for folder in folders for end in ("", ".gz")):
        if path.is_file():
            return path
    raise DataError(
        f"no file {name} or {name}.gz in {data_dir}, its raw/ or its MNIST/raw/: put MNIST's four "
        f"files there, or run {_command(data_dir)}"
    )


def read_idx(path: Path, expected: IdxFile, data_dir: Path) -> Tensor:
    """Read an idx file of unsigned bytes, which must be the expected one.

    The format: two zero bytes, type 0x08, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values.

    Parameters
    ----------
    path : Path
        The file, plain or ``.gz``.
    expected : IdxFile
    data_dir : Path
        The folder to name in the remedy.

    Returns
    -------
    Tensor, uint8
        Of the expected shape.

    Raises
    ------
    DataError
        If the file cannot be read, is cut short, or is another one.
    """
    data = _read(path, data_dir)
    if fault := _fault(data, expected):
        raise DataError(f"{path} {fault}: {_replace(data_dir)}")
    return torch.frombuffer(data, dtype=torch.uint8, offset=_header_size(expected.shape)).view(
        expected.shape
    )


def _header_size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape)


def _fault(data: bytearray, expected: IdxFile) -> str:
    """Say what is wrong with an idx file's bytes; empty if nothing is."""
    shape, start = expected.shape, _header_size(expected.shape)
    size, magic = start + torch.Size(shape).numel(), bytes((0, 0, 8, len(shape)))
    if len(data) < start:
        return f"is {len(data):,} bytes long, expected {size:,}"
    if data[:4] != magic:
        return (
            f"is not an idx file of bytes in {len(shape)} dimensions (it begins with "
            f"0x{data[:4].hex()}, expected 0x{magic.hex()})"
        )
    dims = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if dims != shape:
        return f"holds {_times(dims)} values, expected {_times(shape)}"
    if len(data) != size:
        return f"is {len(data):,} bytes long, expected {size:,}"
    if zlib.crc32(data) != expected.crc:
        return "differs from MNIST's official file (its CRC-32 is another)"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _read(path: Path, data_dir: Path) -> bytearray:
    try:
        data = path.read_bytes()
        return bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}): {_replace(data_dir)}") from None


def _replace(data_dir: Path) -> str:
    return f"delete it and run {_command(data_dir)}"


def _command(data_dir: Path) -> str:
    return f"`bmsfed data download cg-mnist --data-dir {data_dir}`"


class CgMnist(ColoredPair):
    """MNIST as a colored/gray pair."""

    name = "cg-mnist"
    summary = "MNIST, colored and gray"
    obtain = "`bmsfed data download cg-mnist` (LeCun and Cortes; CC BY-SA 3.0)."
    layout = "MNIST's four idx files, plain or .gz, in the folder, its raw/ or its MNIST/raw/"
    official: ClassVar = {"train": 60_000, "test": 10_000}

    def digits(self) -> str:
        """The checksums that every file is held to on reading."""
        return " ".join(f"{file.crc:08x}" for files in FILES.values() for file in files)

    def load_split(self, split: str, data_dir: Path, seed: int, settings: ColorSettings) -> Split:
        """Load a split: 60,000 digits to train or 10,000 to test.

        Parameters
        ----------
        split : {"train", "test"}
        data_dir : Path
            The folder with the files.
        seed : int
            Determines the colours.
        settings : ColorSettings

        Raises
        ------
        DataError
            If a file is missing, cannot be read or is not the official one.
        """
        digits, labels = (
            read_idx(find(file.name, data_dir), file, data_dir) for file in FILES[split]
        )
        return pair_split(
            self.info(settings), digits, labels.long(), split, seed=seed, settings=settings
        )

    def download(self, data_dir: Path) -> None:
        """Fetch MNIST through torchvision; see :func:`download`."""
        download(data_dir)


DATASETS.add(CgMnist.name, CgMnist())
