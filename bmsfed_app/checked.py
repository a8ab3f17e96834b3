"""Settings that pydantic checks, and what it found in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from bmsfed_app.registry import nearest


class Settings(BaseModel):
    """Settings by name; a subclass lists them with ranges and defaults.

    Frozen, and hashable whatever the values are: caches go by them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))


def explain(error: ValidationError, known: Iterable[str] = (), values: object = None) -> str:
    """Say in one line what the first fault is that pydantic found.

    Parameters
    ----------
    error : ValidationError
    known : iterable of str, optional
        The keys that there are: the nearest is offered for one that there is not.
    values : optional
        What was checked: paths are those of its keys, without what pydantic adds to them.
    """
    first = error.errors()[0]
    lacking = first["type"] == "missing"
    path = first["loc"] if lacking else _keys(first["loc"], values)
    key = ".".join(map(str, path))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        name = str(path[-1])
        return f"unknown key '{key}'{nearest(name, [k for k in known if k != name])}"
    silent = first["type"] in ("too_short", "too_long") or isinstance(first["input"], dict)
    given = "" if silent else f", not {first['input']!r}"
    return f"{key}: {message}{given}" if key else message


def _keys(path: Iterable[int | str], values: object) -> list[int | str]:
    """Return a path without the tags of unions, which are no keys of the values."""
    found = []
    for part in path:
        if isinstance(values, Mapping):
            if part not in values:
                continue
            values = values[part]
        elif isinstance(values, list | tuple) and isinstance(part, int):
            values = values[part]
        found.append(part)
    return found
