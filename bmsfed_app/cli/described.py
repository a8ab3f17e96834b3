"""What ``bmsfed methods`` shows: all methods, or everything about one."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bmsfed_app.methods import METHODS, MethodSettings, find_method

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def show_methods(console: Console) -> None:
    """List the methods by name."""
    table = _table(2)
    for name, method in sorted(METHODS.usable().items()):
        table.add_row(name, method.summary)
    console.print(table)


def show_method(name: str, console: Console) -> None:
    """Explain a method: equations, settings with ranges, what travels, source.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    method = find_method(name)
    facts, settings = _table(2), _table(4)
    facts.add_row("travels", method.travels)
    facts.add_row("source", method.source)
    for key, field in method.model_fields.items():
        settings.add_row(key, str(field.default), _span(method, key), field.description)
    console.print(f"{name}: {method.summary}\n")
    console.print(method.equations, "\n")
    console.print(facts)
    console.print("\nsettings (--set NAME=VALUE, or under `methods:` in the YAML file)")
    console.print(settings)
    for key, value in method.overrides.items():
        console.print(f"sets {key}: {value} unless told otherwise")


def _table(columns: int) -> Table:
    """A table without lines whose last column alone is wrapped."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(columns):
        table.add_column(no_wrap=column < columns - 1)
    return table


def _span(method: type[MethodSettings], key: str) -> str:
    """The values that a setting may take."""
    field = method.model_fields[key]
    choices: tuple[Any, ...] = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(c, str) for c in choices):
        return "|".join(choices)
    if field.annotation is bool:
        return "true|false"
    limits = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in _SIGNS.items()
        if hasattr(bound, name)
    ]
    return ", ".join(limits)
