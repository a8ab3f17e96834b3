"""The rooms import one way only, and the code keeps the house rules that a program can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("strategies", "bmsfed_app", "client_app", "server_app")
#: What each room may import besides itself. The command line joins all rooms.
ALLOWED = {
    "strategies": set(),
    "bmsfed_app": {"strategies"},
    "client_app": {"strategies", "bmsfed_app"},
    "server_app": {"strategies", "bmsfed_app"},
    "bmsfed_app/cli": {"strategies", "client_app", "server_app"},
}
FILES = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    path = file.relative_to(ROOT)
    room = path.parts[0]
    key = "bmsfed_app/cli" if path.parts[:2] == ("bmsfed_app", "cli") else room
    names = imported(file)
    assert names & set(ROOMS) <= ALLOWED[key] | {room}
    if room == "strategies":
        assert names.isdisjoint({"torch", "ray", "torchvision", "pydantic", "yaml"})


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_a_screen_and_modules_say_what_they_are(file: Path) -> None:
    tree = ast.parse(file.read_text())
    if tree.body:
        assert ast.get_docstring(tree), "no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or _overrides(node), f"{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            body = (
                (node.end_lineno or 0)
                - node.lineno
                - len((ast.get_docstring(node) or "").split("\n"))
            )
            assert body <= 75, f"{node.name} is {body} lines long"


def _overrides(node: ast.AST) -> bool:
    """Hooks of ``Callback`` and methods of ``Kind`` are documented there."""
    name = getattr(node, "name", "")
    of_kinds = {"shape", "vocabulary", "decode", "render", "augment", "attempt"}
    return name.startswith(("on_", "after_", "forward")) or name in {"run", "loss"} | of_kinds


def test_ci_runs_the_readmes_test_command() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    commands = [line for line in readme.splitlines() if line.endswith("&& pytest")]
    assert len(commands) == 1
    assert commands[0] in ci.splitlines()


@pytest.mark.parametrize("file", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_key_of_the_configurations_is_explained(file: Path) -> None:
    import yaml

    from bmsfed_app.config import ExperimentConfig, load_config

    load_config(str(file))
    text = file.read_text()
    if "extends:" in text:
        return  # what it extends explains the keys
    # Keys of other packages' partitions are theirs to explain.
    assert set(yaml.safe_load(text)) == set(ExperimentConfig.model_fields) - {"partition_settings"}
    for line in text.splitlines():
        key = line.partition(":")[0]
        if key in ExperimentConfig.model_fields and key != "dataset_settings":
            assert "#" in line, f"{key} is not explained"
