"""Nothing that is read may run code: no pickle, no YAML tags, no object arrays.

Between the processes of Ray's engine alone, which belong to one user and one run, Python objects
travel as Ray sends them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Ray's workers run our own code, which they get from us in the first place.
RAYS = {f"bmsfed_app/engine/{name}.py" for name in ("worker", "bundle", "ray_grid")}
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FILES = [
    file
    for package in ("strategies", "bmsfed_app", "client_app", "server_app", "examples")
    for file in sorted((ROOT / package).rglob("*.py"))
]


def faults(source: str) -> Iterator[str]:
    """Calls and imports by which reading can run code."""
    for node in ast.walk(ast.parse(source)):
        names = (
            [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        )
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        yield from (f"import {n}" for n in names if n.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
            safe = given.get("weights_only")
            if called == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value):
                yield "torch.load without weights_only=True"
            if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                unsafe = "Safe" not in ast.unparse(node)
                yield from [called] if unsafe else []
            allowed = given.get("allow_pickle")
            if allowed is not None and not (
                isinstance(allowed, ast.Constant) and not allowed.value
            ):
                yield "allow_pickle"
            if called in ("eval", "exec"):
                yield called


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["import pickle"]),
        ("from ray import cloudpickle", ["import cloudpickle"]),
        ("torch.load(f)", ["torch.load without weights_only=True"]),
        ("torch.load(f, weights_only=True)", []),
        ("np.load(f, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(f, allow_pickle=False); np.load(f)", []),
        ("yaml.load(f)", ["yaml.load"]),
        ("yaml.load(f, Loader=yaml.SafeLoader); yaml.safe_load(f)", []),
        ("eval(text); network.eval()", ["eval"]),
    ],
)
def test_what_is_found(source: str, found: list[str]) -> None:
    assert list(faults(source)) == found


def test_nothing_that_is_read_runs_code() -> None:
    assert len(FILES) > 150
    found = {
        str(file.relative_to(ROOT)): wrong
        for file in FILES
        if (wrong := list(faults(file.read_text())))
    }
    assert {name for name in found if name not in RAYS} == set(), found
    assert set(found) == RAYS, "the exceptions are those that there are"
