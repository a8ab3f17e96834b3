"""Values that win over a file's: ``key=value`` texts, and where a key's value goes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bmsfed_app.config.experiment import ExperimentConfig
from bmsfed_app.config.files import ConfigError


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``key=value`` texts into overrides for :func:`bmsfed_app.config.load_config`.

    Raises
    ------
    ConfigError
        If one has no equals sign.
    """
    split = [pair.partition("=") for pair in pairs]
    if bad := [key for key, equals, _ in split if not equals]:
        raise ConfigError(f"set: expected key=value, not '{bad[0]}'")
    return {key: value for key, _, value in split}


def split_pairs(text: str) -> dict[str, str]:
    """Turn one text of ``key=value`` pairs, between spaces, into overrides.

    As in a shell, a pair with spaces in it stands in quotes: ``lr=0.1 "subsets=[[a], [b]]"``.

    Raises
    ------
    ConfigError
        If a quote is not closed, or a pair has no equals sign.
    """
    try:
        return parse_pairs(shlex.split(text))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"set: {error} in '{text}'") from None


def is_own(key: str) -> bool:
    """Whether a key, dotted or not, is the experiment's own, and not its method's or data's."""
    return key.split(".")[0] in ExperimentConfig.model_fields


def put(values: Mapping[str, Any], key: str, raw: Any, below: Sequence[str] = ()) -> dict[str, Any]:
    """Return values with one more, at a dotted key; what stands beside it stays.

    Parameters
    ----------
    values : mapping
        Plain values of an experiment. Neither they nor what they hold is changed: mappings may be
        shared, by a caller or by YAML's aliases.
    key : str
        As in ``encoders.gray``, or ``methods.fedavg-0.5.drop``.
    raw
        The value; a text is read as YAML.
    below : sequence of str, optional
        Keys under which the key stands.

    Raises
    ------
    ConfigError
        If the key leads through something that has no keys, or the text is not valid YAML.
    """
    value = _read(key, raw)
    return _put(values, [*below, *_parts(key, value)], value, key, ())


def _put(
    values: Mapping[str, Any], path: Sequence[str], value: Any, key: str, above: tuple[str, ...]
) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {**values, head: value}
    here = (*above, head)
    found = values.get(head)
    if found is None and not above:
        found = _default(head)
    if found is not None and not isinstance(found, Mapping):
        name = ".".join(here)
        raise ConfigError(f"'{key}': '{name}' is {found!r}, which has no keys: give {name}=VALUE")
    return {**values, head: _put(found or {}, rest, value, key, here)}


def _default(key: str) -> Any:
    field = ExperimentConfig.model_fields[key]
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _parts(key: str, value: Any) -> list[str]:
    parts = key.split(".")
    if "" in parts:
        name = parts[0] or "KEY"
        raise ConfigError(f"set: '{key}' is no key: give {name}=VALUE or {name}.NAME=VALUE")
    if parts[0] != "methods" or len(parts) < 3:
        return parts
    # A method's name may have dots in it (fedavg-0.5), a setting's has none.
    name = key.removeprefix("methods.")
    return ["methods", name] if isinstance(value, Mapping) else ["methods", *name.rsplit(".", 1)]


def _read(key: str, raw: Any) -> Any:
    """Read a text as YAML, unless it is for a key that takes texts."""
    if not isinstance(raw, str) or not raw:
        return raw
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise ConfigError(f"{key}: '{raw}' is not valid YAML: mind brackets and quotes") from None
    field = ExperimentConfig.model_fields.get(key)
    takes_text = field is not None and field.annotation is str
    return raw if takes_text and not isinstance(value, str) else value
