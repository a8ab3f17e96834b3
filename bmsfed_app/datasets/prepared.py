"""Data sets of media files: listed from their folder, decoded once, then read from a cache.

A data set says which samples there are (:meth:`PreparedSource.scan`) and of which kind each
modality is (:meth:`PreparedSource.kinds`); :mod:`bmsfed_app.datasets.preparation` decodes them.

The cache of a data set is a folder under ``$BMSFED_HOME/cache`` (``~/.bmsfed/cache``), named by
data set, settings and data folder: per split one ``.npy`` per store, the labels, ``samples.csv``
(id, label, natural client, texts); ``files.json`` with the sizes, times and digests of the files it
was made from; and an ``index.json`` with shapes, types, CRC-32, what was left out and the
fingerprint of the data. Arrays are mapped, so processes on one machine share their pages.
"""

from __future__ import annotations

import csv
import hashlib
import json
from abc import abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bmsfed_app.datasets.base import DataError, DatasetInfo, Split
from bmsfed_app.datasets.kinds import Kind
from bmsfed_app.datasets.source import PreparedSettings, Source, SourceSettings
from bmsfed_app.paths import home

FORMAT_VERSION = 1
SPLITS = ("train", "test")
#: After a modality: the store that says which samples have it (n,), bool, where some lack it.
PRESENT = ".present"


@dataclass(frozen=True)
class Sample:
    """One sample as listed by a data set, nothing of it decoded.

    Attributes
    ----------
    id : str
        Its name in the data set, of both splits.
    split : {"train", "test"}
    label : int
    values : dict
        What each modality is decoded from; see its kind. None: the sample lacks it.
    client : str
        Its natural client; empty if there is none.
    key : str
        What it must not share with a sample of the other split, such as the video that a clip is
        cut from; empty if there is nothing. Ids say nothing of the other split.
    where : str
        Where it is listed, such as "samples.csv line 7"; its id if empty.
    """

    id: str
    split: str
    label: int
    values: Mapping[str, Any]
    client: str = ""
    key: str = ""
    where: str = ""

    def place(self) -> str:
        """Say where it is listed, or else its id."""
        return self.where or self.id


class LeftOut(NamedTuple):
    """A listed sample that is not used.

    Attributes
    ----------
    sample : str
        Its id, or where it is listed.
    reason : str
        Names the sample and what is wrong with it, with the file, line or column.
    split : str
        "train" or "test"; empty where that is not known.
    cause : str
        What it has in common with others that are left out, to be counted by.
    by_rule : bool
        Left out as the data set or its user wants it, not for a fault: does not count against
        ``max_bad``.
    """

    sample: str
    reason: str
    split: str = ""
    cause: str = "cannot be used"
    by_rule: bool = False


@dataclass
class Scan:
    """What a data folder holds.

    Attributes
    ----------
    samples : list of Sample
    bad : list of LeftOut
        Listed samples that cannot be used.
    notes : list of str
        What a user should know.
    """

    samples: list[Sample] = field(default_factory=list)
    bad: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(
        self,
        sample: str,
        reason: str,
        split: str = "",
        cause: str = "cannot be used",
        by_rule: bool = False,
    ) -> None:
        """Note a listed sample that is not used; see :class:`LeftOut`."""
        self.bad.append(LeftOut(sample, reason, split, cause, by_rule))


def note_unlisted(scan: Scan, files: Iterable[Path], named: Container[str], lists: str) -> None:
    """Note files of a data set that none of its lists names: they are not used."""
    if unlisted := sorted(f.stem for f in files if f.stem not in named):
        some = ", ".join(unlisted[:3])
        scan.notes.append(f"not in {lists}, so not used: {some} ({len(unlisted)} in all)")


class PreparedSource(Source):
    """A data set of files that are decoded once.

    Attributes
    ----------
    version : int
        Raised when what :meth:`scan` or the kinds give changes, so that caches are made anew.
    """

    version: ClassVar[int] = 1
    settings: ClassVar[type[SourceSettings]] = PreparedSettings

    @abstractmethod
    def kinds(self, settings: Any) -> dict[str, Kind]:
        """Return the kind of each modality, strong first."""

    @abstractmethod
    def classes(self, settings: Any) -> tuple[str, ...]:
        """Return the class names in the order of the labels."""

    @abstractmethod
    def scan(self, data_dir: Path, settings: Any) -> Scan:
        """List the samples of a data folder, without decoding them.

        Raises
        ------
        DataError
            If the folder does not hold the data set.
        """

    def info(self, settings: Any) -> DatasetInfo:
        """Return what is known without any file."""
        kinds = self.kinds(settings)
        names = self.classes(settings)
        return DatasetInfo(
            name=self.name,
            modalities=tuple(kinds),
            num_classes=len(names),
            class_names=names,
            shapes={m: k.shape for m, k in kinds.items()},
            renderers={m: k.renderer(m) for m, k in kinds.items()},
            encoders={m: k.encoder for m, k in kinds.items()},
            vocabularies={m: k.vocabulary for m, k in kinds.items() if k.vocabulary},
            natural=self.natural,
            kept={m: k.kept() for m, k in kinds.items()},
        )

    def identity(self, settings: Any) -> dict[str, Any]:
        """Return what decoding depends on besides the files, as plain values."""
        values = settings.model_dump(mode="json")
        if values.get("gaps") == "refuse":  # as data was prepared before there was the setting
            del values["gaps"]
        return {
            "version": self.version,
            "settings": values,
            "kinds": {m: repr(k) for m, k in self.kinds(settings).items()},
        }

    def cache_dir(self, data_dir: Path, settings: Any) -> Path:
        """Return where the prepared data of a folder lies."""
        known = self.identity(settings) | {
            "format": FORMAT_VERSION,
            "data_dir": str(data_dir.expanduser().resolve()),
        }
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
        return home() / "cache" / f"{self.info(settings).name}-{key}"

    def fingerprint(self, data_dir: Path, settings: Any) -> str:
        """Return the state of the data that was prepared.

        Raises
        ------
        DataError
            If none was, or by an older version of the app.
        """
        cache = self.cache_dir(data_dir, settings)
        if not (cache / "index.json").is_file():
            raise DataError(
                f"'{self.name}' has not been prepared from {data_dir}: run `bmsfed data prepare "
                f"{self.name} --data-dir {data_dir}` (with your YAML file instead of the name, if "
                "you have one)"
            )
        try:
            return str(read_index(cache)["data"])
        except KeyError:
            raise DataError(f"{cache} is of an older version of the app: {_again(cache)}") from None

    def load_split(self, split: str, data_dir: Path, seed: int, settings: Any) -> Split:
        """Map a split of the prepared data; ``seed`` changes nothing.

        Raises
        ------
        DataError
            If the data has not been prepared, or its cache cannot be read.
        """
        self.fingerprint(data_dir, settings)
        return read_cache(self.cache_dir(data_dir, settings), split, self.info(settings))


def read_index(cache: Path) -> dict[str, Any]:
    """Read what a cache says of itself.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        index: dict[str, Any] = json.loads((cache / "index.json").read_text(encoding="utf-8"))
        return index
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {cache / 'index.json'} ({error}): {_again(cache)}") from None


def read_cache(cache: Path, split: str, info: DatasetInfo) -> Split:
    """Map a split of a cache.

    Raises
    ------
    DataError
        If a file is missing, cut short or not what the index says.
    """
    described = read_index(cache)["splits"][split]
    stores = {
        name: _mapped(cache / split / f"{name}.npy", of, cache)
        for name, of in described["stores"].items()
    }
    labels = stores.pop("labels").long()
    names = {m: m + PRESENT for m in info.modalities}
    masks = {m: stores.pop(name) for m, name in names.items() if name in stores}
    rows = read_samples(cache, split)
    owners = np.array([row["client"] for row in rows]) if info.natural else None
    ids = np.array([row["id"] for row in rows])
    return Split(labels, stores, info.renderers, owners, ids).lacking(masks)


def read_samples(cache: Path, split: str) -> list[dict[str, str]]:
    """Read a split's ``samples.csv``: id, label, client and a caption per modality, in words.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    file = cache / split / "samples.csv"
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file} ({error}): {_again(cache)}") from None


def _mapped(path: Path, described: Mapping[str, Any], cache: Path) -> Tensor:
    try:
        # Copy-on-write, so that torch may have it: nothing writes, and the pages stay shared.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path} ({error}): {_again(cache)}") from None
    if list(array.shape) != described["shape"] or str(array.dtype) != described["dtype"]:
        raise DataError(
            f"{path} is {array.dtype} {array.shape}, not {described['dtype']} "
            f"{tuple(described['shape'])}: {_again(cache)}"
        )
    return torch.from_numpy(array)


def _again(cache: Path) -> str:
    return f"delete {cache} and prepare the data again"
