"""What a method is: a strategy, a local objective, and settings for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from strategies import FedAvg, ModalityStrategy

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig

#: A registered name and its settings: of an objective, or of a head.
Named = tuple[str, dict[str, Any]]


class MethodSettings(BaseModel):
    """Settings that every method has."""

    model_config = ConfigDict(extra="forbid")

    head_columns: Literal["own", "all"] = Field(
        "own", description="average the head's columns of a modality over its trainers, or over all"
    )


def cross_entropy(settings: Any) -> Named:
    """Return the plain local objective."""
    return "cross_entropy", {}


def linear(settings: Any) -> Named:
    """Return the plain fusion head."""
    return "linear", {}


def fedavg(settings: MethodSettings, common: dict[str, Any]) -> ModalityStrategy:
    """Build FedAvg."""
    return FedAvg(head_columns=settings.head_columns, **common)


def fedavg_with_prototypes(settings: MethodSettings, common: dict[str, Any]) -> ModalityStrategy:
    """Build FedAvg that sends global prototypes, the weak modality and ratios along."""
    return FedAvg(head_columns=settings.head_columns, share_prototypes=True, **common)


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes
    ----------
    summary : str
        One line for ``bmsfed methods``.
    equations : str
        What is computed, a line each.
    travels : str
        What a client and the server send besides FedAvg's parts, and what the server keeps.
    source : str
        Paper, and how we differ from it where we do.
    strategy : callable
        Builds the server's strategy from (settings, keyword arguments of every strategy).
    objective : callable
        Returns the local objective's name and its settings from the method's settings.
    settings : type
        Names, ranges and defaults of the hyper-parameters.
    head : callable
        Returns the fusion head's name and its settings.
    presets : dict
        Settings of this method that differ from the defaults.
    config : dict
        Keys of the experiment that the method sets.
    number : str
        The setting that a number in place of the name's "x" sets (``fedavg-0.5``).
    check : callable
        Says why the method cannot run an experiment, or None, from (settings, configuration).
    """

    summary: str
    equations: str
    travels: str
    source: str
    strategy: Callable[[Any, dict[str, Any]], ModalityStrategy] = fedavg
    objective: Callable[[Any], Named] = cross_entropy
    settings: type[MethodSettings] = MethodSettings
    head: Callable[[Any], Named] = linear
    presets: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    number: str = ""
    check: Callable[[Any, ExperimentConfig], str | None] = lambda settings, config: None

    def describe(self, name: str) -> str:
        """Explain the method: equations, settings with ranges, what travels, source."""
        lines = [f"{name}: {self.summary}", ""]
        lines += [f"  {line}" for line in self.equations.splitlines()]
        lines += ["", f"  travels  {self.travels}", f"  source   {self.source}", ""]
        lines.append("  settings (--set NAME=VALUE, or under `methods:` in the YAML file)")
        fields = self.settings.model_fields
        values = {n: str(self.presets.get(n, f.default)) for n, f in fields.items()}
        spans = {n: _span(f.annotation, f.metadata) for n, f in fields.items()}
        columns = [max(map(len, c)) for c in (fields, values.values(), spans.values())]
        for n, f in fields.items():
            cells = (n, values[n], spans[n])
            padded = "  ".join(f"{c:<{w}}" for c, w in zip(cells, columns, strict=True))
            lines.append(f"    {padded}  {f.description}".rstrip())
        lines += [
            f"  sets {key}: {value} unless told otherwise" for key, value in self.config.items()
        ]
        return "\n".join(lines)


def _span(annotation: Any, metadata: list[Any]) -> str:
    """The values that a setting may take."""
    choices = getattr(annotation, "__args__", ())
    if choices and all(isinstance(c, str) for c in choices):
        return "|".join(choices)
    if annotation is bool:
        return "true|false"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [
        f"{sign} {getattr(m, key)}"
        for m in metadata
        for key, sign in signs.items()
        if hasattr(m, key)
    ]
    return ", ".join(limits)
