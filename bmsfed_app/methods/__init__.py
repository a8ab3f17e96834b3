"""The method registry: a method is a strategy, a local objective, and settings for both.

Adding one takes a strategy or an objective (a file each, where the existing ones do not serve)
and one entry in one of this package's files. Other packages add theirs by an entry point, a
:class:`Method`, in the group ``bmsfed.methods``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from bmsfed_app.methods import (
    averaging,
    blended,
    bmsfed,
    modulated,
    personal,
    regularised,
    selecting,
)
from bmsfed_app.methods.base import Method, MethodSettings

#: Every method by name. Where an entry has a ``number``, any number may stand for the name's "x".
METHODS: dict[str, Method] = {
    **averaging.METHODS,
    **regularised.METHODS,
    **modulated.METHODS,
    **blended.METHODS,
    **selecting.METHODS,
    **personal.METHODS,
    **bmsfed.METHODS,
}


#: Entry-point group through which other packages add methods.
ENTRY_POINTS = "bmsfed.methods"


def added_methods() -> dict[str, Method]:
    """Return the methods of other packages that are installed, by name.

    Raises
    ------
    ValueError
        If one cannot be loaded or is no :class:`Method`.
    """
    found = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            method = point.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"method {point.name}: {point.value} cannot be loaded: {error}"
            ) from None
        if not isinstance(method, Method):
            raise ValueError(f"method {point.name}: {point.value} is no bmsfed_app.methods.Method")
        found[point.name] = method
    return found


def find_method(name: str) -> Method | None:
    """Return the entry of a name such as ``fedavg`` or ``fedavg-0.3-fix``, or None.

    >>> find_method("fedavg-0.3-fix").presets
    {'drop': 0.3}
    """
    if name in METHODS:
        return METHODS[name]
    if (added := added_methods().get(name)) is not None:
        return added
    for key, method in METHODS.items():
        pattern = re.escape(key).replace(r"\-x", r"\-(\d*\.?\d+)")
        if method.number and (match := re.fullmatch(pattern, name)):
            presets = {**method.presets, method.number: float(match[1])}
            return dataclasses.replace(method, presets=presets)
    return None


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


__all__ = ["METHODS", "Method", "MethodSettings", "added_methods", "find_method", "nearest"]
