"""Types of keys whose values are made plain, or looked up, as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from bmsfed_app.models.encoders import HUGGING_FACE
from bmsfed_app.models.weights import PUBLISHED
from bmsfed_app.schedules import SCHEDULES
from strategies import Deadline


def _absolute(path: str) -> str:
    """Workers need not share this process's directory."""
    return str(Path(path).expanduser().absolute())


def _absolute_or_none(path: str) -> str:
    return _absolute(path) if path else ""


def _absolute_models(encoders: dict[str, str]) -> dict[str, str]:
    names = {m: n.removeprefix(HUGGING_FACE) for m, n in encoders.items()}
    local = {m for m, n in names.items() if n != encoders[m] and Path(n).expanduser().is_dir()}
    return {m: HUGGING_FACE + _absolute(names[m]) if m in local else encoders[m] for m in names}


def _absolute_weights(files: dict[str, str]) -> dict[str, str]:
    return {m: f if f == PUBLISHED else _absolute(f) for m, f in files.items()}


def _patterns(given: object) -> object:
    """Write ``true`` and a single pattern as lists of patterns."""
    if not isinstance(given, Mapping):
        return given
    short = {True: ["*"], False: []}
    return {
        m: short[p] if isinstance(p, bool) else [p] if isinstance(p, str) else p
        for m, p in given.items()
    }


def _readable_deadline(given: float | str) -> float | str:
    Deadline.read(given)
    return given


def _known_schedule(name: str) -> str:
    SCHEDULES.find(name)
    return name


#: A file or folder; empty: none.
AbsolutePath = Annotated[str, AfterValidator(_absolute_or_none)]
#: Encoders' names by modality, local models' folders among them.
Encoders = Annotated[dict[str, str], AfterValidator(_absolute_models)]
#: Files of weights by modality.
Weights = Annotated[dict[str, str], AfterValidator(_absolute_weights)]
#: Patterns of parameters' names by modality; ``true`` is all, ``false`` none.
Patterns = Annotated[dict[str, list[str]], BeforeValidator(_patterns)]
#: Seconds, or a multiple of the usual time, as ``3x``.
DeadlineText = Annotated[float | str, AfterValidator(_readable_deadline)]
#: One of the registered.
ScheduleName = Annotated[str, AfterValidator(_known_schedule)]
