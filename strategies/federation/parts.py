"""Which parameter belongs to which part, for models whose names are not ours.

Inside the strategies every array is called ``encoders.<modality>.…`` (one modality's) or ``head.…``
(shared). :class:`Parts` translates a foreign model's names to these at the door and back, so that
no method ever sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ..messages import Arrays, modalities_of, owner

#: Parts of these names are no modality: everybody trains them, whatever is assigned.
SHARED = ("head", "shared")

#: Patterns by part, as a user gives them.
Patterns = Mapping[str, str | Sequence[str]]


class Parts:
    """One model's parameter names, each in exactly one part.

    Parameters
    ----------
    names : iterable of str
        The model's names in its own order, such as ``list(model.state_dict())``.
    patterns : mapping of str to str or list of str, optional
        Patterns (``fnmatch``: ``*`` also spans dots) by part. Parts called ``head`` or ``shared``
        are trained by everybody; every other part is the modality of its name. Without patterns
        ``encoders.<name>.…`` is the modality ``<name>`` and everything else is shared.

    Raises
    ------
    ValueError
        If a parameter has no part or several, a part no parameter, or there is no modality.

    Examples
    --------
    >>> parts = Parts(["vision.w", "bert.w", "classifier.b"],
    ...               {"image": "vision.*", "text": "bert.*", "head": "classifier.*"})
    >>> parts.modalities
    ('image', 'text')
    >>> parts.part_of
    {'vision.w': 'image', 'bert.w': 'text', 'classifier.b': 'head'}
    """

    def __init__(self, names: Iterable[str], patterns: Patterns | None = None) -> None:
        self.names = tuple(names)
        if len(set(self.names)) < len(self.names) or not self.names:
            raise ValueError("the model's parameter names must be distinct, and at least one")
        self.part_of = (
            _found(self.names) if patterns is None else _matched(self.names, dict(patterns))
        )
        self._inside = {n: _inner_name(n, part, patterns) for n, part in self.part_of.items()}
        self._outside = {inner: n for n, inner in self._inside.items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in the order in which the model's names mention them."""
        return modalities_of(self._inside.values())

    def encoder_of(self, name: str) -> str | None:
        """Return the modality whose encoder a parameter is part of; None for heads."""
        inner = self._inside[name]
        return owner(inner) if inner.startswith("encoders.") else None

    def inside(self, arrays: Arrays) -> Arrays:
        """Rename a model's arrays, or some of them, for the strategies."""
        return {self._inside[n]: value for n, value in arrays.items()}

    def outside(self, arrays: Arrays) -> Arrays:
        """Rename arrays of the strategies back, in the model's own order."""
        there = {self._outside[inner]: value for inner, value in arrays.items()}
        return {n: there[n] for n in self.names if n in there}

    def in_words(self, text: str) -> str:
        """Put the model's own names into a message that quotes the strategies'."""
        return re.sub(r"'([^']+)'", lambda m: f"'{self._outside.get(m[1], m[1])}'", text)

    def check(self, names: Iterable[str]) -> None:
        """Refuse names that are not those the parts were made for.

        Raises
        ------
        ValueError
            Naming the first parameter that is gone or new.
        """
        now = set(names)
        gone, new = [n for n in self.names if n not in now], sorted(now - set(self.names))
        if gone or new:
            change = [f"'{gone[0]}' is gone ({len(gone)} in all)"] if gone else []
            change += [f"'{new[0]}' is new ({len(new)} in all)"] if new else []
            raise ValueError(
                f"the model's names changed during the run: {', '.join(change)}; build the same "
                "model in every round, or start a new run with a new strategy"
            )


def _found(names: Sequence[str]) -> dict[str, str]:
    """Parts by the custom ``encoders.<modality>.…``; one column block per modality in the head."""
    modalities = modalities_of(names)
    if not modalities:
        raise ValueError(
            f"no parameter is called 'encoders.<modality>.…' (the first is '{names[0]}'): tell the "
            "strategy which parameters belong together, such as "
            'parts={"image": "vision.*", "text": "bert.*", "head": "classifier.*"}'
        )
    parts = {}
    for name in names:
        scope, *path = name.split(".")
        column = scope == "head" and len(path) == 2 and path[1] in modalities
        parts[name] = path[0] if scope == "encoders" else path[1] if column else "shared"
    return parts


def _matched(names: Sequence[str], patterns: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    for part in patterns:
        if not part or "." in part or "," in part:
            raise ValueError(f"part '{part}': a part's name holds no dot and no comma")
    lists = {p: [given] if isinstance(given, str) else list(given) for p, given in patterns.items()}
    parts: dict[str, str] = {}
    uncovered = []
    for name in names:
        fits = [p for p, ways in lists.items() if any(fnmatchcase(name, way) for way in ways)]
        if len(fits) > 1:
            raise ValueError(
                f"parameter '{name}' is in the parts '{fits[0]}' and '{fits[1]}': make their "
                "patterns disjoint"
            )
        if fits:
            parts[name] = fits[0]
        else:
            uncovered.append(name)
    if uncovered:
        raise ValueError(
            f"parameter '{uncovered[0]}' is in no part ({len(uncovered)} in all): add a pattern "
            "for it; what all modalities share belongs to the part 'head'"
        )
    for part, ways in lists.items():
        if part not in parts.values():
            raise ValueError(
                f"part '{part}' has no parameters: none of {names[0]}, … fits {ways}; mend its "
                "pattern or leave the part out"
            )
    if all(part in SHARED for part in lists):
        raise ValueError(f"the parts {list(lists)} hold no modality: name at least one")
    return parts


def _inner_name(name: str, part: str, patterns: Patterns | None) -> str:
    if patterns is None:
        # Only `head.<name>` and `head.<name>.<modality>` mean the same inside.
        ours = name.startswith("encoders.") or (
            name.startswith("head.") and (part != "shared" or name.count(".") == 1)
        )
        return name if ours else "head." + name.replace(".", "/")
    return "head." + name.replace(".", "/") if part in SHARED else f"encoders.{part}.{name}"
