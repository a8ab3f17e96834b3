"""Things by name: methods, data sets, encoders, partitions, objectives and heads.

Each kind has one :class:`Registry`. Ours register themselves where they are defined; other
installed packages add theirs by an entry point in the registry's group.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


class Registry(Generic[T]):
    """What there is of one kind, by name.

    Parameters
    ----------
    kind : str
        What the things are called in messages, such as "encoder".
    group : str
        Group of the entry points by which other packages add theirs, such as "bmsfed.encoders".
    package : str, optional
        A package whose modules register what is ours; imported at the first look, so that a new
        file in it is all that a new thing takes.
    error : type, default ValueError
        Raised for names that are unknown or cannot be loaded.
    check : callable, optional
        Says why an object of another package is not of this kind, or None.

    Examples
    --------
    >>> shapes = Registry[int]("shape", "example.shapes")
    >>> shapes.add("triangle", 3)
    3
    >>> shapes.find("triangel")
    Traceback (most recent call last):
    ...
    ValueError: unknown shape 'triangel'; did you mean 'triangle'? (known: triangle)
    """

    def __init__(
        self,
        kind: str,
        group: str,
        package: str = "",
        *,
        error: type[Exception] = ValueError,
        check: Callable[[object], str | None] = lambda thing: None,
    ) -> None:
        self.kind, self.group = kind, group
        self._package, self._error, self._check = package, error, check
        self._own: dict[str, T] = {}
        self._loaded: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Register a thing of ours under a name of its own, and return it."""
        if name in self._own and self._own[name] is not thing:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._own[name] = thing
        return thing

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates."""
        return lambda thing: self.add(name, thing)

    @property
    def own(self) -> dict[str, T]:
        """Ours by name, in the order in which they were registered."""
        if self._package:
            package, self._package = import_module(self._package), ""
            for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                import_module(module.name)
        return self._own

    def names(self) -> list[str]:
        """Names of all: ours, then those of other packages."""
        return list(dict.fromkeys([*self.own, *self._points]))

    def __contains__(self, name: str) -> bool:
        return name in self.own or name in self._points

    def find(self, name: str) -> T:
        """Return a thing by name.

        Raises
        ------
        ValueError
            (or the registry's own error) if there is none, or another package's cannot be loaded.
        """
        if name in self.own:
            return self._own[name]
        if name not in self._points:
            raise self.unknown(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(self._points[name])
        return self._loaded[name]

    def unknown(self, name: str, besides: Iterable[str] = ()) -> Exception:
        """Return the error for a name that is not known, with the nearest that is.

        Parameters
        ----------
        besides : iterable of str
            Names that are known from elsewhere, offered as well.
        """
        known = list(dict.fromkeys([*self.names(), *besides]))
        hint = nearest(name, known)
        return self._error(f"unknown {self.kind} '{name}'{hint} (known: {', '.join(known)})")

    def _load(self, point: EntryPoint) -> T:
        try:
            thing: T = point.load()
        except Exception as error:  # whatever another package's import raises
            raise self._error(
                f"{self.kind} '{point.name}' of {point.value} cannot be loaded ({error}): mend or "
                "remove that package"
            ) from error
        if fault := self._check(thing):
            raise self._error(f"{self.kind} '{point.name}': {point.value} {fault}")
        return thing

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}
