"""What ties this project to a version of Flower: which it takes, and names that Flower may move."""

import ast
import importlib
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from strategies import _flower
from strategies._flower import PRIVATE, TESTED, check_flower, private

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    p
    for room in "strategies bmsfed_app client_app server_app tests benchmarks examples".split()
    for p in sorted((ROOT / room).rglob("*.py"))
    if p.name != "_flower.py" and "flwr" in p.read_text()
]
#: Modules that Flower's documentation imports from and that export nothing by ``__all__``.
DOCUMENTED = {"flwr.server.client_proxy"}


@pytest.mark.parametrize("path", PRIVATE)
def test_what_flower_does_not_export_is_still_there(path: str) -> None:
    private(path)  # raises, naming the feature that needs it


def test_a_name_that_flower_moved_is_told_with_what_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = "flwr.supercore.task_identity:Moved"
    monkeypatch.setitem(PRIVATE, gone, "every grid")
    with pytest.raises(ImportError, match=r"every grid needs flwr.*:Moved, .*pip install"):
        private(gone)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_all_else_is_flowers_public_interface(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [a.name for a in node.names if a.name.split(".")[0] == "flwr"]
            assert set(modules) <= {"flwr", "flwr.simulation"}
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "flwr":
            continue
        assert node.module is not None
        if node.module in DOCUMENTED:
            continue
        exported = importlib.import_module(node.module).__all__
        for alias in node.names:
            assert alias.name in exported, f"{node.module}.{alias.name}: see strategies/_flower.py"


def test_an_old_flower_is_refused_with_the_remedy() -> None:
    check_flower(".".join(map(str, _flower.MINIMUM)) + ".0")
    with pytest.raises(ImportError, match=r"flwr 1\.41\.0 is installed: run pip install 'flwr"):
        check_flower("1.41.0")


def test_a_newer_flower_than_tested_is_warned_of_and_not_refused() -> None:
    major, minor = TESTED
    with pytest.warns(UserWarning, match=rf"up to {major}\.{minor}, flwr 2\.0\.0\.dev1 is"):
        check_flower("2.0.0.dev1")
    with pytest.warns(UserWarning, match="pip install"):
        check_flower(f"{major}.{minor + 1}.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_flower(f"{major}.{minor}.7")


def test_the_range_and_the_checks_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [flower] = [
        r for d in project["project"]["dependencies"] if (r := Requirement(d)).name == "flwr"
    ]
    oldest, newest = (".".join(map(str, v)) for v in (_flower.MINIMUM, TESTED))
    assert f">={oldest}" in str(flower.specifier)
    assert f"{newest}.0" in flower.specifier
    assert version("flwr") in flower.specifier
    assert project["tool"]["flwr"]["app"]["flwr-version-target"] == f"{newest}.0"
