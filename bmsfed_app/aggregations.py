"""Ways to merge what clients trained, by name: the mean, and rules of ``strategies.robust``.

A rule is a class (or a function) of its settings by name, whose objects are a
:class:`~strategies.robust.ByCoordinate` or a :class:`~strategies.robust.ByPart`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bmsfed_app.choice import settings_fault, settings_of
from bmsfed_app.registry import Registry, not_callable
from strategies.robust import ByCoordinate, ByPart, Krum, Median, NormClip, Rule, TrimmedMean

AGGREGATIONS: Registry[Callable[..., Rule | None]] = Registry(
    "aggregation", "bmsfed.aggregations", check=not_callable
)


@AGGREGATIONS.register("mean")
def mean() -> None:
    """Return no rule: the mean weighted by sample counts."""


for _name, _rule in (
    *(("norm-clip", NormClip), ("median", Median)),
    *(("trimmed-mean", TrimmedMean), ("krum", Krum)),
):
    AGGREGATIONS.add(_name, _rule)


def build_aggregation(choice: Mapping[str, Any]) -> Rule | None:
    """Build a rule of its name and settings; None is the mean.

    Raises
    ------
    ValueError
        If there is none of the name, or a setting is out of range.
    """
    return AGGREGATIONS.find(str(choice["name"]))(**settings_of(choice))


def aggregation_fault(choice: Mapping[str, Any]) -> str | None:
    """Say why a rule cannot be used, or return None: one is built."""
    name = str(choice.get("name", ""))
    try:
        builder = AGGREGATIONS.find(name)
    except ValueError as error:
        return str(error)
    if fault := settings_fault(builder, settings_of(choice)):
        return fault
    try:
        rule = build_aggregation(choice)
    except Exception as error:  # whatever somebody's class raises
        return f"{name}: {error}"
    if rule is not None and not isinstance(rule, ByCoordinate | ByPart):
        return f"what '{name}' builds is neither a ByCoordinate nor a ByPart of strategies.robust"
    return None
