"""The table of faults in docs/reliability.md: made from the tests that show them.

`python -m tests.faults.table` writes it anew.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- table of faults: python -m tests.faults.table -->", "<!-- end of the table -->"
#: Modules with tests of faults, in the table's order.
MODULES = ("test_nodes", "test_deployed", "test_rare", "test_soak", "elsewhere")

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Fault:
    """One line of the table; ``test`` is the file below tests/, and the test's name."""

    fault: str
    happens: str
    kept: str
    message: str
    test: str


FAULTS: dict[str, Fault] = {}


def fault(name: str, *, happens: str, kept: str, message: str = "") -> Callable[[Test], Test]:
    """Mark a test as the one that shows a fault, and say what it shows.

    Parameters
    ----------
    name : str
        The fault.
    happens, kept : str
        What happens, and what is kept.
    message : str, optional
        What the user reads; an ellipsis for what differs.
    """

    def note(test: Test) -> Test:
        file = test.__module__.removeprefix("tests.").replace(".", "/") + ".py"
        FAULTS[name] = Fault(name, happens, kept, message, f"{file}::{test.__name__}")
        return test

    return note


def shown_by(test: str, name: str, *, happens: str, kept: str, message: str = "") -> None:
    """Add a fault that a test of another folder shows, "strategies/test_x.py::test_y"."""
    FAULTS[name] = Fault(name, happens, kept, message, test)


def _place(one: Fault) -> int:
    """The place of a fault's module; within it the order of the tests stays."""
    module = Path(one.test.partition("::")[0]).stem
    return MODULES.index(module) if module in MODULES else len(MODULES)


def table() -> str:
    """Return the table as Markdown."""
    for module in MODULES:
        importlib.import_module(f"tests.faults.{module}")
    lines = ["| fault | what happens | what is kept | message | test |", "|---|---|---|---|---|"]
    for f in sorted(FAULTS.values(), key=_place):  # pytest imports them in an order of its own
        message = f"`{f.message}`" if f.message else ""
        cells = (f.fault, f.happens, f.kept, message, f"`{f.test}`")
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def document() -> str:
    """Return the document with the table as the tests have it."""
    text = DOCUMENT.read_text()
    pattern = re.escape(BEGIN) + ".*" + re.escape(END)
    whole = f"{BEGIN}\n{table()}\n{END}"
    return re.sub(pattern, lambda _: whole, text, flags=re.DOTALL)


if __name__ == "__main__":
    from tests.faults import table as module  # the tests fill this one's FAULTS, not __main__'s

    DOCUMENT.write_text(module.document())
