"""Settings that pydantic checks, and what it found in one line."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from bmsfed_app.registry import nearest


class Settings(BaseModel):
    """Settings by name; a subclass lists them with ranges and defaults.

    Frozen, and hashable whatever the values are: caches go by them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))


def explain(error: ValidationError, known: Iterable[str] = ()) -> str:
    """One line for the first fault that pydantic found; ``known`` are the keys that there are."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, known)}"
    silent = first["type"] in ("too_short", "too_long") or isinstance(first["input"], dict)
    given = "" if silent else f", not {first['input']!r}"
    return f"{key}: {message}{given}" if key else message
