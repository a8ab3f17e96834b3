"""Callbacks by name, for the key ``callbacks`` of an experiment: adding one is adding a file.

Each is a class or function that takes a :class:`Watched` and settings of its own, and returns a
:class:`strategies.Callback`. Other packages add theirs by an entry point in the group
``bmsfed.callbacks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmsfed_app.registry import Registry, not_callable
from server_app.evaluation import Evaluator
from strategies import Callback

CALLBACKS: Registry[Callable[..., Callback]] = Registry(
    "callback", "bmsfed.callbacks", "server_app.callbacks", check=not_callable
)


@dataclass(frozen=True)
class Watched:
    """What a callback may look at besides the strategy and the round's report.

    Attributes
    ----------
    folder : Path
        The run's folder.
    evaluator : Evaluator
        Evaluates models on the test split.
    """

    folder: Path
    evaluator: Evaluator


def build_callbacks(wanted: Mapping[str, Mapping[str, Any]], watched: Watched) -> list[Callback]:
    """Build callbacks by name, each from its settings.

    Raises
    ------
    ValueError
        If there is no such callback, or it refuses a setting.
    """
    return [_built(name, settings, watched) for name, settings in wanted.items()]


def _built(name: str, settings: Mapping[str, Any], watched: Watched) -> Callback:
    made = CALLBACKS.find(name)
    try:
        return made(watched, **settings)
    except ValueError as error:
        raise ValueError(f"callback {name}: {error}") from None
