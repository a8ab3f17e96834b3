"""What the YAML file says of a table."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bmsfed_app.datasets.source import PreparedSettings
from bmsfed_app.datasets.table.columns import (
    AudioColumn,
    Column,
    ImageColumn,
    TextColumn,
    VideoColumn,
)
from bmsfed_app.datasets.table.measured import ArrayColumn, NumbersColumn, SeriesColumn
from bmsfed_app.registry import nearest

#: Settings that name a column with a role of its own.
ROLES = ("label", "split", "client", "id", "key")

AnyColumn = Annotated[
    AudioColumn
    | ImageColumn
    | VideoColumn
    | TextColumn
    | SeriesColumn
    | ArrayColumn
    | NumbersColumn,
    Field(discriminator="type"),
]
#: The types of columns, by name.
COLUMN_TYPES: dict[str, type[Column]] = {
    "audio": AudioColumn,
    "image": ImageColumn,
    "video": VideoColumn,
    "text": TextColumn,
    "series": SeriesColumn,
    "array": ArrayColumn,
    "numbers": NumbersColumn,
}


def _names(values: Any) -> Any:
    """Take whole numbers for names; what YAML made of yes and no has none."""
    if not isinstance(values, list | tuple):
        return values
    if any(isinstance(v, bool) for v in values):
        raise ValueError("YAML takes yes, no, on and off for true and false: write them in quotes")
    return [str(v) if isinstance(v, int) else v for v in values]


class TableSettings(PreparedSettings):
    """Settings of ``table``; docs/tables.md explains them and every type of column.

    Attributes
    ----------
    modalities : dict
        A :class:`~bmsfed_app.datasets.table.columns.Column` by modality, strong first.
    classes : tuple of str
        The labels in the order of their numbers; as the table has them if left out.
    name : str
        What the data set is called in runs, caches, titles.
    table : str
        File in the data folder: CSV, .parquet or .jsonl.
    label, split, client, id, key : str
        Names of columns; all but the first may lack in the table. ``key`` is what a sample must
        not share with one of the other split, such as a person.
    splits : dict
        What values of the split column other than "train" and "test" stand for; "" leaves their
        rows out.
    test_share : float
        Without a split column: share of every class drawn as the test split, once for all; with
        ``key``, of whole keys.
    part : bool
        Whether the table is a part of the data, as a node's own is: it may lack training samples of
        some ``classes``, which must be listed.
    """

    modalities: dict[str, AnyColumn] = Field(min_length=2)
    classes: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    name: str = Field("table", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    table: str = "samples.csv"
    label: str = "label"
    split: str = "split"
    client: str = "client"
    id: str = "id"
    key: str = ""
    splits: dict[str, Literal["train", "test", ""]] = Field(default_factory=dict)
    test_share: float = Field(0.2, gt=0, lt=1)
    part: bool = False

    @field_validator("modalities", mode="before")
    @classmethod
    def _known_types(cls, modalities: Any) -> Any:
        for modality, column in modalities.items() if isinstance(modalities, dict) else ():
            kind = column.get("type") if isinstance(column, dict) else getattr(column, "type", None)
            if kind not in COLUMN_TYPES:
                hint = nearest(str(kind), COLUMN_TYPES)
                raise ValueError(
                    f"'{modality}' needs a type{hint} ({', '.join(COLUMN_TYPES)})"
                    if kind is None
                    else f"'{modality}' has type '{kind}'{hint} (known: {', '.join(COLUMN_TYPES)})"
                )
        return modalities

    @field_validator("classes")
    @classmethod
    def _several(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) == 1 or len(set(classes)) < len(classes):
            raise ValueError("two or more, each once")
        return classes

    @model_validator(mode="after")
    def _listed(self) -> TableSettings:
        if self.part and not self.classes:
            raise ValueError("part: list all classes under 'classes': a part may lack some")
        return self

    @model_validator(mode="after")
    def _no_roles(self) -> TableSettings:
        roles = self.roles()
        for modality, column in self.modalities.items():
            if taken := [c for c in column.reads(modality) if c in roles]:
                raise ValueError(
                    f"modalities.{modality}: '{taken[0]}' is the column of `{roles[taken[0]]}`, "
                    "which is no input: leave it out"
                )
        return self

    def roles(self) -> dict[str, str]:
        """Return the settings that name a column with a role of its own, by that name."""
        return {getattr(self, role): role for role in ROLES if getattr(self, role)}
