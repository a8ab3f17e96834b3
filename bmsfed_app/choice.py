"""A thing chosen by name, with settings of its own: ``adam``, or ``{name: adam, eps: 1e-6}``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import BeforeValidator

from bmsfed_app.registry import nearest


def _as_mapping(value: object) -> object:
    if isinstance(value, str):
        return {"name": value} if value else {}
    if not isinstance(value, Mapping):
        return value
    if value and not isinstance(value.get("name"), str):
        raise ValueError("say which by its key 'name'")
    return {key: _number(one) for key, one in value.items()}


def _number(value: object) -> object:
    """Read 1e-6 as the number that it is: YAML takes it for a text, as it has no point."""
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.I)
    return float(str(value)) if is_number else value


#: A name and settings; empty where nothing is chosen.
Choice = Annotated[dict[str, Any], BeforeValidator(_as_mapping)]


def settings_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a choice: all but its name.

    >>> settings_of({"name": "adam", "eps": 1e-6})
    {'eps': 1e-06}
    """
    return {key: value for key, value in choice.items() if key != "name"}


def settings_fault(
    builder: Callable[..., object],
    settings: Iterable[str],
    *,
    leading: int = 0,
    given: Collection[str] = (),
) -> str | None:
    """Say which setting a class or function does not take or lacks, or return None.

    Parameters
    ----------
    builder : callable
    settings : iterable of str
        What the user sets.
    leading : int, default 0
        Arguments by position that it is called with besides.
    given : collection of str, optional
        Arguments by name that it is called with besides.

    Examples
    --------
    >>> settings_fault(lambda widths, *, dim: ..., ["din"], leading=1)
    "unknown setting 'din'; did you mean 'dim'? (known: dim)"
    >>> settings_fault(lambda widths, *, dim: ..., [], leading=1)
    "lacks the setting 'dim'"
    """
    parameters = list(inspect.signature(builder).parameters.values())[leading:]
    known = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in known if p.name not in given]
    settings = list(settings)
    unknown = [name for name in settings if name not in names]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        near = nearest(unknown[0], names)
        return f"unknown setting '{unknown[0]}'{near} (known: {', '.join(names) or 'none'})"
    for parameter in known:
        needed = parameter.name in names and parameter.default is parameter.empty
        if needed and parameter.name not in settings:
            return f"lacks the setting '{parameter.name}'"
    return None


def package_fault(builder: object) -> str | None:
    """Say which package a class or function needs that is not installed, or return None.

    Parameters
    ----------
    builder : object
        With an attribute ``needs``, if it needs any: the package, and what pip installs to have it.

    Examples
    --------
    >>> def draw(): ...
    >>> draw.needs = ("no_such_package", "bmsfed[drawing]")
    >>> package_fault(draw)
    "the package no_such_package is not installed: pip install 'bmsfed[drawing]'"
    """
    package, install = getattr(builder, "needs", ("", ""))
    spec = find_spec(package) if package else None
    # A folder of that name in the current one, as W&B makes, is found as well: it has no origin.
    there = spec is not None and spec.origin is not None
    if there or not package:
        return None
    return f"the package {package} is not installed: pip install '{install}'"
