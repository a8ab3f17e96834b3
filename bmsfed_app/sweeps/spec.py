"""What stands in a sweep file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from bmsfed_app.checked import Settings, explain
from bmsfed_app.config.files import shipped_files
from bmsfed_app.registry import nearest

#: The scale that a sweep is run at when nobody says.
DEFAULT_SCALE = "desk"


class SweepError(ValueError):
    """A sweep cannot be run; the message names the culprit and the remedy."""


def _entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Entry(Settings):
    """One choice on an axis of a sweep: a name, alone or with what it sets.

    Attributes
    ----------
    name : str
        What tables and figures call it.
    set : dict
        Keys of the experiment, as ``bmsfed run --set`` takes them.
    only : list of str
        Data sets that it is for; empty: all.
    """

    name: str = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    only: list[str] = Field(default_factory=list)


class MethodEntry(Entry):
    """A method.

    Attributes
    ----------
    method : str
        Its name, where ``name`` is a label of one's own.
    tuned : str
        File of ``bmsfed tune``, relative to the sweep's, whose settings it has below ``set``.
    """

    method: str = ""
    tuned: str = ""


class DataEntry(Entry):
    """A data set.

    Attributes
    ----------
    config : str
        The configuration it is run by, where ``name`` is a label of one's own: a shipped one's
        name, or a YAML file, relative to the sweep's.
    needs : str
        What to bring, where the data cannot be had by a download.
    """

    config: str = ""
    needs: str = ""


Methods = list[Annotated[MethodEntry, BeforeValidator(_entry)]]
Datasets = list[Annotated[DataEntry, BeforeValidator(_entry)]]
Entries = list[Annotated[Entry, BeforeValidator(_entry)]]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]


class Scale(Settings):
    """What a scale changes: smaller, or fewer.

    Attributes
    ----------
    set : dict
        Over the file's ``set``.
    sets : dict
        The same for one data set, by its name.
    configs : dict
        The configuration that a data set is run by, by its name, in place of its entry's.
    methods, datasets, partitions, settings : list of str, optional
        Names of those that are run; by default all.
    seeds : list of int, optional
    """

    set: dict[str, Any] = Field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    configs: dict[str, str] = Field(default_factory=dict)
    methods: list[str] | None = None
    datasets: list[str] | None = None
    partitions: list[str] | None = None
    settings: list[str] | None = None
    seeds: Seeds | None = None


class SweepFile(Settings):
    """A sweep: every method on every data set, partition, setting and seed.

    Attributes
    ----------
    title : str
    paper : str
        The paper's own numbers beside ours: ``results/paper/NAME.csv``.
    metric : str or list of str
        What tables are of, by the names of metrics; tests are of the first.
    baselines : list of str
        Methods that paired differences are taken to.
    set : dict
        Keys of all experiments.
    methods, datasets, partitions, settings : list
        The axes. ``partitions`` and ``settings`` may be left out.
    seeds : list of int
    scales : dict
        By name; a file without any has the one scale "desk", which is the file as it stands.
    """

    title: str = ""
    paper: str = ""
    metric: Annotated[list[str], BeforeValidator(_listed)] = Field(
        default_factory=lambda: ["accuracy"], min_length=1
    )
    baselines: list[str] = Field(default_factory=list)
    set: dict[str, Any] = Field(default_factory=dict)
    methods: Methods = Field(min_length=1)
    datasets: Datasets = Field(min_length=1)
    partitions: Entries = Field(default_factory=list)
    settings: Entries = Field(default_factory=list)
    seeds: Seeds = Field(default_factory=lambda: [0])
    scales: dict[str, Scale] = Field(default_factory=lambda: {DEFAULT_SCALE: Scale()})

    @model_validator(mode="after")
    def _names_are_known(self) -> SweepFile:
        """Refuse names that stand for nothing, or twice."""
        axes = {a: [e.name for e in getattr(self, a)] for a in AXES}
        for axis, names in axes.items():
            if twice := [n for i, n in enumerate(names) if n in names[:i]]:
                raise ValueError(f"{axis}: '{twice[0]}' stands there twice: give one another name")
        for method in self.baselines:
            known_name("baselines", method, axes["methods"])
        for entry in [e for a in AXES for e in getattr(self, a)]:
            for dataset in entry.only:
                known_name(f"'{entry.name}': only", dataset, axes["datasets"])
        for label, scale in self.scales.items():
            for axis in AXES:
                for name in getattr(scale, axis) or ():
                    known_name(f"scales.{label}.{axis}", name, axes[axis])
            for key in ("sets", "configs"):
                for name in getattr(scale, key):
                    known_name(f"scales.{label}.{key}", name, axes["datasets"])
        return self


#: The axes of a sweep, besides seeds.
AXES = ("methods", "datasets", "partitions", "settings")
_KEYS = {k for c in (SweepFile, Scale, MethodEntry, DataEntry) for k in c.model_fields}


def known_name(where: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is none of those known.

    Raises
    ------
    SweepError
        With the nearest one.
    """
    if name not in known:
        raise SweepError(
            f"{where}: there is no '{name}'{nearest(name, known)} (there are: "
            f"{', '.join(known) or 'none'})"
        )


def sweep_names() -> list[str]:
    """Names of the sweeps that ship with the app."""
    return sorted(p.stem for p in _shipped())


def is_sweep(source: str) -> bool:
    """Whether a name is that of a sweep file, or of a shipped sweep, and of no run's folder."""
    path = Path(source).expanduser()
    if source in sweep_names():
        return not (path / "config.yaml").is_file()
    return path.suffix in {".yaml", ".yml"} and not path.is_dir()


def find_sweep(source: str) -> Path:
    """Return a sweep's file, by its path or by the name of a shipped one.

    Raises
    ------
    SweepError
        If there is none.
    """
    path = Path(source).expanduser()
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    if found := [p for p in _shipped() if p.stem == source]:
        return found[0]
    raise SweepError(
        f"no sweep '{source}'{nearest(source, sweep_names())} (give a YAML file or one of: "
        f"{', '.join(sweep_names())})"
    )


def read_sweep(source: str) -> SweepFile:
    """Read a sweep file.

    Parameters
    ----------
    source : str
        Path of a YAML file, or the name of one that ships with the app (``table2``).

    Raises
    ------
    SweepError
        One message that names the culprit and the remedy.
    """
    path = find_sweep(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"cannot read the sweep '{source}': {error}") from None
    except yaml.YAMLError as error:
        raise SweepError(f"'{source}' is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SweepError(f"'{source}' holds no keys: expected methods, datasets, seeds, …")
    try:
        return SweepFile(**values)
    except ValidationError as error:
        raise SweepError(f"sweep '{source}': {explain(error, _KEYS, values)}") from None
    except TypeError:
        raise SweepError(f"sweep '{source}': its keys must be names") from None


def tuned_settings(entry: MethodEntry, folder: Path) -> dict[str, Any]:
    """Return what an entry's file of tuned settings says; nothing where it names none.

    Raises
    ------
    SweepError
        If it cannot be read.
    """
    if not entry.tuned:
        return {}
    file = folder / entry.tuned
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        return dict(found["set"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SweepError(
            f"'{entry.name}': tuned: cannot read '{file}' ({error}): make it by `bmsfed tune`"
        ) from None


def _shipped() -> list[Path]:
    return shipped_files("sweeps")


E = TypeVar("E", bound=Entry)


def chosen(entries: Sequence[E], names: Sequence[str] | None) -> list[E]:
    """Return the entries of these names, in the file's order; all where no names are given."""
    return [e for e in entries if names is None or e.name in names]
