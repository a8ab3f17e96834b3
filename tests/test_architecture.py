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


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in FILES}


def dependencies(name: str) -> set[str]:
    """Modules of ours that a module imports anywhere, under ``TYPE_CHECKING`` and in functions too.

    ``from package import module`` is of the module; a package's ``__init__`` comes with its modules
    and is not counted for them, else whatever it re-exports would be a circle.
    """
    file, found = MODULES[name], set()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*base, node.module or ""]).strip(".") if node.level else node.module
            inner = {f"{source}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= inner or {str(source)}
    return (found & set(MODULES)) - {name}


def test_no_file_imports_itself_through_others() -> None:
    graph = {name: dependencies(name) for name in MODULES}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "a circle: " + " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())


def closure(name: str) -> set[str]:
    found, left = set(), [name]
    while left:
        found.add(new := left.pop())
        left += dependencies(new) - found
    return found


@pytest.mark.parametrize("name", ["decisions", "selection.facility", "selection.submodular"])
def test_decisions_know_no_transport(name: str) -> None:
    """What a method decides can be read, and tested, without a word of Flower."""
    for module in closure(f"strategies.{name}"):
        assert not module.startswith("strategies.federation")
        assert "flwr" not in imported(MODULES[module])


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
def test_every_configuration_loads(file: Path) -> None:
    from bmsfed_app.config import config_names, load_config

    load_config(str(file))
    assert (file.stem in config_names()) == (file.stem != "reference")


def test_the_reference_explains_every_key_and_shows_its_default() -> None:
    import yaml

    from bmsfed_app.config import ExperimentConfig

    text = (ROOT / "conf/reference.yaml").read_text()
    shown = yaml.safe_load(text)
    assert set(shown) == set(ExperimentConfig.model_fields)
    defaults = ExperimentConfig(dataset=shown["dataset"]).model_dump()
    assert {k: defaults[k] for k in shown} == shown
    for line in text.splitlines():
        key = line.partition(":")[0]
        if key in ExperimentConfig.model_fields:
            assert "#" in line, f"{key} is not explained"
