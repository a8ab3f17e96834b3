"""What a tuner may choose: settings by name, each with its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bmsfed_app.sweeps.spec import SweepError

#: What is tuned of every method unless the user gives the same key.
DEFAULT = "lr=0.001:0.1:log"

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Dimension:
    """One setting.

    Attributes
    ----------
    key : str
        As ``bmsfed run --set`` takes it.
    low, high : float or int
        Of a range; whole numbers where both are.
    log : bool
        Whether the range is searched by its logarithm.
    choices : tuple
        Of a list of values; empty for a range.
    method : str
        The method that it is for; empty: all.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()
    method: str = ""

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def parse_space(texts: Sequence[str], methods: Sequence[str]) -> list[Dimension]:
    """Read ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=A|B|C``, of one method ``METHOD/KEY=…``.

    Parameters
    ----------
    texts : sequence of str
    methods : sequence of str
        Those that are tuned.

    Returns
    -------
    list of Dimension
        With the learning rate, unless a text is about it.

    Raises
    ------
    SweepError
        If a text is none of these, or names a method that is not tuned.
    """
    found = [_dimension(text, methods) for text in texts]
    if not any(d.key == "lr" and not d.method for d in found):
        found.insert(0, _dimension(DEFAULT, methods))
    names = [(d.method, d.key) for d in found]
    if twice := [k for i, (m, k) in enumerate(names) if (m, k) in names[:i]]:
        raise SweepError(f"--space: '{twice[0]}' stands there twice")
    return found


def space_of(method: str, space: Sequence[Dimension]) -> dict[str, Dimension]:
    """Return a method's settings by key; one of its own takes the place of one for all."""
    return {d.key: d for d in space if not d.method} | {
        d.key: d for d in space if d.method == method
    }


def described(space: Mapping[str, Dimension]) -> dict[str, str]:
    """Say what ranges were searched, as they were given."""
    return {
        key: "|".join(map(str, d.choices))
        if d.choices
        else f"{d.low}:{d.high}{':log' if d.log else ''}"
        for key, d in space.items()
    }


def _dimension(text: str, methods: Sequence[str]) -> Dimension:
    name, equals, values = text.partition("=")
    method, slash, key = name.rpartition("/")
    if not (equals and key and values) or (slash and not method):
        raise _fault(text)
    if method and method not in methods:
        raise SweepError(
            f"--space: '{text}' is for '{method}', which is not tuned ({', '.join(methods)})"
        )
    if "|" in values:
        try:
            choices = tuple(map(_value, values.split("|")))
        except yaml.YAMLError:
            raise _fault(text) from None
        if not all(isinstance(c, float | int | str | bool | None) for c in choices):
            raise _fault(text)
        return Dimension(key, choices=choices, method=method)
    low, high, *rest = [*values.split(":"), ""][:3] if ":" in values else ("", "", "")
    try:
        bounds = [_value(low), _value(high)]
    except yaml.YAMLError:
        raise _fault(text) from None
    log = rest == ["log"]
    numbers = all(isinstance(b, float | int) and not isinstance(b, bool) for b in bounds)
    if not numbers or rest not in (["log"], [""]) or values.count(":") > 1 + log:
        raise _fault(text)
    if not bounds[0] < bounds[1] or (log and bounds[0] <= 0):
        raise SweepError(
            f"--space: '{text}': the lower end comes first{', and is above 0 with log' * log}"
        )
    return Dimension(key, bounds[0], bounds[1], log, method=method)


def _value(text: str) -> Any:
    """Read a value as YAML, and 1e-3, a text there, as the number that it is."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _fault(text: str) -> SweepError:
    return SweepError(
        f"--space: '{text}' is no range: give KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A|B|C (of one "
        "method: METHOD/KEY=…)"
    )
