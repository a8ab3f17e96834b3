"""Reading YAML files of experiments: shipped ones by name, and ones that extend others."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from bmsfed_app.datasets import DATASETS
from bmsfed_app.registry import nearest


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key and the remedy."""


def config_names() -> list[str]:
    """Names of the configurations that ship with the app."""
    names = {p.name.removesuffix(".yaml") for p in _shipped() if p.name.endswith(".yaml")}
    return sorted(names - {"reference"})  # which explains the keys and is no experiment


def read_values(source: str) -> dict[str, Any]:
    """Read a file's keys, over those of the file that its key ``extends`` names.

    Parameters
    ----------
    source : str
        Path of a YAML file, the name of one that ships with the app, or a data set's name.
        ``extends`` takes the same, a path being relative to the file that says so. Where both
        files have a mapping under one key, the mappings are merged; of other values the file's
        own wins.

    Raises
    ------
    ConfigError
        If a file cannot be read, or extends itself.
    """
    return _read(source, Path(), ())


def own_keys(source: str) -> set[str]:
    """Return the keys of a user's file itself, without those of what it extends; none of others."""
    path = Path(source)
    if not path.is_file() or path.resolve() in [p.resolve() for p in _shipped()]:
        return set()
    return set(_parse(source, path))


def _read(source: str, folder: Path, extending: tuple[str, ...]) -> dict[str, Any]:
    """Read a file; ``folder`` is where paths start, ``extending`` the files that led here."""
    path = folder / source
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        if source in DATASETS and source not in config_names():
            return {"dataset": source}  # a data set without a file of its own: all by default
        path = _find_shipped(source)
    key = str(path.resolve())
    if key in extending:
        raise ConfigError(f"'{source}' extends itself: mend 'extends' in it or in what it extends")
    values = _parse(source, path)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"'{source}': extends: the name or path of a configuration, not {base!r}")
    below = _read(base, path.parent, (*extending, key))
    both = [k for k in values if isinstance(values[k], dict) and isinstance(below.get(k), dict)]
    return below | values | {k: below[k] | values[k] for k in both}


def _parse(source: str, path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration '{source}': {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"'{source}' is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"'{source}' holds no keys: expected lines such as 'dataset: cg-digits'")
    return values


def _find_shipped(name: str) -> Path:
    if found := [p for p in _shipped() if p.name == f"{name}.yaml"]:
        return found[0]
    raise ConfigError(
        f"no configuration '{name}'{nearest(name, config_names())} (give a YAML file or one of: "
        f"{', '.join(config_names())})"
    )


def shipped_files(folder: str = "") -> list[Path]:
    """YAML files beside the packages (a checkout, a Flower bundle) or inside them (a wheel).

    Parameters
    ----------
    folder : str, optional
        Below ``conf/``.
    """
    package = Path(str(resources.files("bmsfed_app")))
    inside = package / "conf"
    found = (inside if inside.is_dir() else package.parent / "conf") / folder
    return sorted(found.glob("*.yaml"))


def _shipped() -> list[Path]:
    return shipped_files()
