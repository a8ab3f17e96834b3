"""What a registered data set is, whether its files are read as they are or prepared once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from bmsfed_app.checked import Settings, explain
from bmsfed_app.datasets.base import DataError, DatasetInfo, Split
from bmsfed_app.registry import Registry


class SourceSettings(Settings):
    """A data set's own settings; a subclass lists them with ranges and descriptions."""


class PreparedSettings(SourceSettings):
    """Settings of data sets that are decoded once."""

    gaps: Literal["refuse", "keep"] = Field(
        "refuse",
        description="samples that lack a modality (an empty cell, a file that is not there): "
        "refuse leaves them out as faults, keep uses what they have",
    )


class Source(ABC):
    """A data set by name: what is known of it, and how a split is loaded.

    Attributes
    ----------
    name : str
        As in the configuration.
    summary : str
        One line: what the samples are.
    obtain : str
        Where the data comes from, and its licence.
    layout : str
        What the data folder must hold.
    official : mapping
        Samples by split ("train", "test") in the published data set; empty if it fixes none.
    natural : str
        What natural clients are, e.g. "talkers"; empty if the data set knows none.
    settings : type
        The data set's settings, a :class:`SourceSettings`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    obtain: ClassVar[str]
    layout: ClassVar[str]
    official: ClassVar[Mapping[str, int]] = {}
    natural: ClassVar[str] = ""
    settings: ClassVar[type[SourceSettings]] = SourceSettings

    @abstractmethod
    def info(self, settings: Any) -> DatasetInfo:
        """Return what is known without any file, from the parsed settings."""

    @abstractmethod
    def load_split(self, split: str, data_dir: Path, seed: int, settings: Any) -> Split:
        """Load a split.

        Parameters
        ----------
        split : {"train", "test"}
        data_dir : Path
            The data set's folder.
        seed : int
            The experiment's: what the data set draws at random follows from it.
        settings
            As :meth:`parse` returned them.

        Raises
        ------
        DataError
            If it cannot be read; the message names the file and the remedy.
        """

    def unseen(self, split: Split, seed: int, settings: Any) -> Split:
        """Return training samples as they would be seen in testing, for validation.

        They are so already, except in a data set that makes up its inputs by split.
        """
        return split

    def fingerprint(self, data_dir: Path, settings: Any) -> str:
        """Name the state of the data that :meth:`load_split` reads now.

        The same data with the same settings has the same name on every machine, whatever the seed.
        It is asked for whenever a split is loaded, so it must cost little.

        Returns
        -------
        str
            Hexadecimal digits; empty if the data set cannot say, which is its default: nothing
            then notices that the data is other than before.
        """
        return ""

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Names of the data set's own settings."""
        return tuple(self.settings.model_fields)

    def parse(self, values: Mapping[str, Any] | SourceSettings) -> Any:
        """Turn plain values (YAML, JSON), some of which may be left out, into settings.

        Settings stay what they are.

        Raises
        ------
        DataError
            If a key is unknown or a value is out of its range.
        """
        try:
            return self.settings.model_validate(values)
        except ValidationError as error:
            fault = explain(error, self.setting_names, values)
            raise DataError(f"dataset_settings of '{self.name}': {fault}") from None

    def resolve(self, settings: Any, data_dir: Path) -> Any:
        """Fill in what the settings leave to the data itself, once, when an experiment is read.

        What it returns is kept as the experiment's settings and travels to clients and devices,
        which need no file to know it. Most data sets leave nothing open.

        Raises
        ------
        DataError
            If the data folder does not hold what has to be known.
        """
        return settings

    def download(self, data_dir: Path) -> None:
        """Fetch the data into a folder, where it can be had without a licence click.

        Raises
        ------
        DataError
            If it cannot.
        """
        raise DataError(f"'{self.name}' cannot be downloaded by us. {self.obtain}")

    def official_counts(self, settings: Any) -> Mapping[str, int]:
        """Return the published number of samples by split, for these settings."""
        return self.official

    def may_lack_classes(self, settings: Any) -> bool:
        """Whether a class without training samples is noted, and no fault.

        By default of published data, of which a part may be at hand.
        """
        return bool(self.official_counts(settings))


def _fault(found: object) -> str | None:
    kind = found if isinstance(found, type) else type(found)
    return None if issubclass(kind, Source) else "is no bmsfed_app.datasets.Source"


#: The data sets by name.
DATASETS: Registry[Source | type[Source]] = Registry(
    "data set", "bmsfed.datasets", "bmsfed_app.datasets", error=DataError, check=_fault
)


def find_source(name: str) -> Source:
    """Return a data set by name.

    Raises
    ------
    DataError
        If there is none, or another package's cannot be loaded.
    """
    found = DATASETS.find(name)
    return found() if isinstance(found, type) else found
