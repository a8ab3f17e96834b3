"""Strict reading of what others sent as JSON: kinds, ranges and sizes, before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: Bounds of what one client says of itself or answers, far above what honest ones do.
MOST_SAMPLES = 10**9
LONGEST_NAME = 200
LONGEST_JSON = 1 << 20
MOST_NAMES = 1000


def read_json(text: object) -> dict[str, Any]:
    """Read a JSON object of bounded size and depth.

    Raises
    ------
    ValueError
        If it is none, too long, nested too deeply, or holds NaN or infinity.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected JSON as text, found {type(text).__name__}")
    if len(text) > LONGEST_JSON:
        raise ValueError(f"{len(text):,} characters of JSON, at most {LONGEST_JSON:,} are read")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {type(found).__name__}")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON that holds {name}, which is no number")


def a_count(value: object, what: str) -> int:
    """Return a whole number from 0 to :data:`MOST_SAMPLES`.

    Raises
    ------
    ValueError
        Naming ``what`` it is, if it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{what} is a {type(value).__name__}, expected a whole number")
    if value < 0:
        # One of thousands of digits cannot even be shown.
        shown = str(value) if value > -(10**18) else "below -10^18"
        raise ValueError(f"negative {what} {shown}")
    if value > MOST_SAMPLES:
        raise ValueError(f"{what} is above {MOST_SAMPLES:,}")
    return value


def a_number(value: object, what: str) -> float:
    """Return a number as float; NaN and infinity pass here, too large integers do not.

    Raises
    ------
    ValueError
        Naming ``what`` it is, if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} is a {type(value).__name__}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a number") from None


def a_name(value: object, what: str) -> str:
    """Return a name: printable, not empty, not too long.

    Raises
    ------
    ValueError
        Naming ``what`` it is, if it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is a {type(value).__name__}, expected text")
    if not value or len(value) > LONGEST_NAME:
        raise ValueError(f"{what} has {len(value)} characters, expected 1 to {LONGEST_NAME}")
    if not value.isprintable():
        raise ValueError(f"{what} {value!r} holds characters that cannot be shown")
    return value


def names(value: object, what: str) -> tuple[str, ...]:
    """Return a list of distinct names; see :func:`a_name`."""
    if not isinstance(value, list) or len(value) > MOST_NAMES:
        raise ValueError(f"{what} are no list of at most {MOST_NAMES} names")
    found = tuple(a_name(v, f"one of {what}") for v in value)
    if len(set(found)) < len(found):
        raise ValueError(f"{what} name one twice")
    return found


def numbers(value: object, what: str) -> dict[str, float]:
    """Return numbers by name; see :func:`a_number`."""
    if not isinstance(value, Mapping) or len(value) > MOST_NAMES:
        raise ValueError(f"{what} are no mapping of at most {MOST_NAMES} numbers")
    return {a_name(k, f"a name of {what}"): a_number(v, what) for k, v in value.items()}


def finite_metrics(found: Mapping[str, object]) -> dict[str, float]:
    """Return the finite numbers among an answer's metrics; others never reach the history.

    Raises
    ------
    ValueError
        If there are too many, or a name or an integer is out of bounds.
    """
    told = {
        k: v for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)
    }
    return {k: v for k, v in numbers(told, "metrics").items() if math.isfinite(v)}
