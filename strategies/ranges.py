"""A hyper-parameter's default and range, for the strategy that has it and for whoever sets it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_COMPARE = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


@dataclass(frozen=True)
class Parameter(Generic[T]):
    """The default of a hyper-parameter and, of a number, its bounds.

    Attributes
    ----------
    default
        What it is where nobody says otherwise.
    ge, gt, le, lt : float, optional
        Bounds: at least, above, at most, below.

    Examples
    --------
    >>> Parameter(1.2, ge=0, le=100).check("threshold", -1)
    Traceback (most recent call last):
    ...
    ValueError: threshold is -1, it must be >= 0 and <= 100
    """

    default: T
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds there are, by name."""
        found = {key: getattr(self, key) for key in _COMPARE}
        return {key: bound for key, bound in found.items() if bound is not None}

    def check(self, name: str, value: float) -> None:
        """Check a value.

        Raises
        ------
        ValueError
            If it is out of range, or not a number.
        """
        signs = {key: _COMPARE[key] for key in self.bounds}
        if not all(holds(value, self.bounds[key]) for key, (_, holds) in signs.items()):
            wanted = " and ".join(f"{sign} {self.bounds[key]}" for key, (sign, _) in signs.items())
            raise ValueError(f"{name} is {value}, it must be {wanted}")
