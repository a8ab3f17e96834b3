"""Refuses an old Flower by name, before an import fails somewhere inside it."""

from __future__ import annotations

from importlib.metadata import version

#: The oldest Flower whose interfaces are used.
MINIMUM = (1, 41)


def check_flower(found: str) -> None:
    """Raise if a version of flwr is too old.

    Raises
    ------
    ImportError
        Naming both versions and the remedy.
    """
    if tuple(int(part) for part in found.split(".")[:2]) < MINIMUM:
        need = ".".join(map(str, MINIMUM))
        raise ImportError(
            f"strategies needs flwr {need} or newer, flwr {found} is installed: run "
            f"pip install 'flwr[simulation]=={need}.*'"
        )


check_flower(version("flwr"))
