"""A limit in a test only ends a hang: on a busy machine everything takes its time."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAST = 600
#: Where processes are started and waited for; elsewhere a short limit is what is tested.
FILES = [p for room in ("e2e", "examples") for p in sorted((ROOT / "tests" / room).glob("*.py"))]


def test_no_test_is_ended_before_ten_minutes() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["timeout"] >= LEAST


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_no_process_is_given_less_than_ten_minutes(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            given = [k.value for k in node.keywords if k.arg in {"timeout", "seconds"}]
            if isinstance(node.func, ast.Attribute) and node.func.attr in {"wait", "timeout"}:
                given += node.args
            for value in given:
                if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                    assert value.value >= LEAST, f"{file.name}:{node.lineno}"
