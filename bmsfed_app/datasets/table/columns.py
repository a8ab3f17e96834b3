"""How a modality stands in a table, and the types whose cells name media or hold a text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from bmsfed_app.checked import Settings
from bmsfed_app.datasets.kinds import Audio, Frames, Image, Kind, Text
from bmsfed_app.datasets.table.rows import Row, as_text
from bmsfed_app.registry import nearest


class Fault(NamedTuple):
    """Why a row cannot be used: in words, and what it has in common with others.

    ``empty``: there is nothing in its cells; where gaps are kept, that is no fault.
    """

    reason: str
    cause: str
    empty: bool = False


class Column(Settings):
    """How one modality stands in the table.

    Attributes
    ----------
    column : str
        The column's name; the modality's if left out.
    """

    type: str
    column: str = ""

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known, kind = cls.model_fields, values.get("type")
            if absent := [k for k, f in known.items() if f.is_required() and k not in values]:
                raise ValueError(f"type {kind} needs the key '{absent[0]}'")
            if unknown := [k for k in values if k not in known]:
                near = nearest(unknown[0], known)
                raise ValueError(f"type {kind} has no key '{unknown[0]}'{near}")
        return values

    @abstractmethod
    def kind(self) -> Kind:
        """Return how the modality is decoded."""

    def reads(self, modality: str) -> tuple[str, ...]:
        """Return the names of the columns that the modality is made of."""
        return (self.column or modality,)

    def values(self, rows: Sequence[Row], modality: str, folder: Path) -> list[Any]:
        """Return what the modality of each row is decoded from, or a :class:`Fault`."""
        [name] = self.reads(modality)
        return [self._value(row, name, modality, folder) for row in rows]

    def _value(self, row: Row, name: str, modality: str, folder: Path) -> Any:
        """Return a cell's file; a path is relative to the data folder."""
        text = row.text(name)
        return folder / text if text else lacking(row, (name,), modality)


def lacking(row: Row, names: Sequence[str], modality: str) -> Fault:
    """Return the fault of a row whose cells of a modality are empty."""
    word = f"column '{names[0]}' is" if len(names) == 1 else f"columns {_some(names)} are"
    return Fault(f"{row.where}: {word} empty", f"lacks {modality}", empty=True)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class AudioColumn(Column):
    """The path of a sound file; see :class:`~bmsfed_app.datasets.kinds.Audio`."""

    type: Literal["audio"]
    rate: int = Field(16_000, ge=1000)
    seconds: float = Field(3.0, gt=0)
    window: int = Field(512, ge=16)
    hop: int = Field(159, ge=1)

    def kind(self) -> Kind:
        """A spectrogram."""
        return Audio(self.rate, self.seconds, self.window, self.hop)


class ImageColumn(Column):
    """The path of a picture; see :class:`~bmsfed_app.datasets.kinds.Image`."""

    type: Literal["image"]
    side: int = Field(224, ge=28)
    crop: bool = True

    def kind(self) -> Kind:
        """A picture."""
        return Image(self.side, crop=self.crop)


class VideoColumn(Column):
    """The path of a video; see :class:`~bmsfed_app.datasets.kinds.Frames`."""

    type: Literal["video"]
    frames: int = Field(3, ge=1)
    side: int = Field(224, ge=28)
    most: int = Field(5, ge=1)
    spacing: float = Field(1.0, gt=0)
    crop: bool = True

    def kind(self) -> Kind:
        """Frames."""
        most = max(self.most, self.frames)
        return Frames(self.frames, self.side, most=most, spacing=self.spacing, crop=self.crop)


class TextColumn(Column):
    """A text, or with ``file: true`` the path of one."""

    type: Literal["text"]
    tokens: int = Field(40, ge=1)
    tokenizer: str = "hash"
    file: bool = False

    def kind(self) -> Kind:
        """Token ids."""
        return Text(self.tokens, self.tokenizer)

    def _value(self, row: Row, name: str, modality: str, folder: Path) -> Any:
        value = super()._value(row, name, modality, folder)
        return value if self.file or isinstance(value, Fault) else as_text(row.cells[name])
