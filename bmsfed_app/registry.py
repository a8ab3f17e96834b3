"""Things by name: methods, data sets, encoders, heads, objectives, optimisers and more.

Each kind has one :class:`Registry`. Ours register themselves where they are defined, and so may
anybody's module; other installed packages add theirs by an entry point in the registry's group.
What one of them breaks is its own name and no other.
"""

from __future__ import annotations

import difflib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

# Where nobody has set up logging, its warnings go to stderr as they are.
log = logging.getLogger("bmsfed")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def not_callable(thing: object) -> str | None:
    """Say why something that is no class and no function is not of a kind that is called."""
    return None if callable(thing) else "is neither a class nor a function"


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
        self._by: dict[str, str] = {}
        self._loaded: dict[str, T] = {}
        self._reported: set[str] = set()

    def add(self, name: str, thing: T) -> T:
        """Register a thing under a name of its own, and return it.

        Raises
        ------
        ValueError
            (or the registry's own error) if the name is another thing's, or this is none of the
            kind.
        """
        return self._add(name, thing, sys._getframe(1).f_globals["__name__"])

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates."""
        by = sys._getframe(1).f_globals["__name__"]
        return lambda thing: self._add(name, thing, by)

    @property
    def own(self) -> dict[str, T]:
        """Those registered in code by name, in the order in which they were: ours before others."""
        if self._package:
            package, self._package = import_module(self._package), ""
            for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                import_module(module.name)
        return self._own

    def names(self) -> list[str]:
        """Names of all: those registered in code, then those of entry points."""
        return list(dict.fromkeys([*self.own, *self._points]))

    def __contains__(self, name: str) -> bool:
        return name in self.own or name in self._points

    def find(self, name: str) -> T:
        """Return a thing by name; one registered in code wins over an entry point, and says so.

        Raises
        ------
        ValueError
            (or the registry's own error) if there is none, if another package's cannot be loaded,
            or if two packages give the name.
        """
        if name in self.own:
            if name in self._points:
                others = " and ".join(map(_source, self._points[name]))
                self._report(
                    name,
                    f"{self.kind} '{name}' of {others} is left out: '{name}' is another's here",
                )
            return self._own[name]
        if name not in self._points:
            raise self.unknown(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def usable(self) -> dict[str, T]:
        """Return all that can be used by name; what cannot is reported, once, and left out."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.find(name)
            except ValueError as error:
                self._report(name, f"left out: {error}")
        return found

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

    def registered_by(self, name: str) -> str:
        """Return the module that registered a name in code; "" where none did."""
        return self._by.get(name, "") if name in self.own else ""

    def point(self, name: str) -> EntryPoint | None:
        """Return the entry point that a name comes from, or None where code registered it."""
        return None if name in self.own or name not in self._points else self._points[name][0]

    def _add(self, name: str, thing: T, by: str) -> T:
        if self._package and not by.startswith(self._package):
            _ = self.own  # ours come first, and keep their names
        if name in self._own and self._own[name] is not thing:
            raise self._error(
                f"{self.kind} '{name}' is registered twice, by {self._by.get(name)} and by {by}: "
                "give one another name"
            )
        if fault := self._check(thing):
            raise self._error(f"{self.kind} '{name}': what {by} registers {fault}")
        self._own[name] = thing
        self._by.setdefault(name, by)
        return thing

    def _load(self, name: str) -> T:
        points = self._points[name]
        if len(points) > 1:
            raise self._error(
                f"{self.kind} '{name}' is given by {' and by '.join(map(_source, points))}: remove "
                "one of these packages"
            )
        [point] = points
        try:
            thing: T = point.load()
        except (Exception, SystemExit) as error:  # whatever another package's import raises
            raise self._error(
                f"{self.kind} '{name}' of {_source(point)} cannot be loaded "
                f"({str(error) or type(error).__name__}): mend or remove that package"
            ) from error
        if fault := self._check(thing):
            raise self._error(f"{self.kind} '{name}': {point.value} {fault}")
        return thing

    def _report(self, name: str, message: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            log.warning("bmsfed: %s", message)

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name: several where packages give one name to different things."""
        found: dict[str, list[EntryPoint]] = {}
        for point in _installed(tuple(sys.path)).select(group=self.group):
            same = found.setdefault(point.name, [])
            if point.value not in [p.value for p in same]:
                same.append(point)
        return found


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> EntryPoints:
    """Entry points of all packages on ``sys.path``: read once, not for every registry."""
    found: Any = entry_points()  # what it is depends on Python's version, how it selects does not
    return cast(EntryPoints, found)


def _source(point: EntryPoint) -> str:
    """What an entry point names, and the package that says so."""
    return f"{point.value} ({point.dist.name} {point.dist.version})" if point.dist else point.value
