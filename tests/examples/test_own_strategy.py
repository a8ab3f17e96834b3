"""The example of a strategy of one's own: its own tests, its length, its README."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bmsfed_app import methods
from bmsfed_app.config import load_config

FOLDER = Path(__file__).resolve().parents[2] / "examples/own_strategy"


def test_its_own_tests_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_it_has_thirty_lines() -> None:
    source = (FOLDER / "least_trained.py").read_text()
    lines = source[source.index("class LeastTrained") :].splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


def test_the_readmes_blocks_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    for block in blocks:
        exec(re.sub("^  ", "", block, flags=re.M), names)
    parts = {"a": "x.*", "head": "y"}
    assert names["ClassicLeastTrained"](["x.w", "y"], parts=parts, clients_per_round=1)
    monkeypatch.setattr(
        methods,
        "entry_points",
        lambda group: [EntryPoint("least-trained", "own_methods:LEAST_TRAINED", group)],
    )
    module = type(sys)("own_methods")
    module.LEAST_TRAINED = names["LEAST_TRAINED"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_methods", module)
    config = load_config("cg-digits", {"method": "least-trained"})
    strategy = config.method_entry().strategy(config.method_settings(), {"clients_per_round": 2})
    assert type(strategy).__name__ == "LeastTrained"


def test_a_method_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("lost", "no_such_package:METHOD", "bmsfed.methods")
    monkeypatch.setattr(methods, "entry_points", lambda group: [broken])
    with pytest.raises(ValueError, match=r"method lost: no_such_package:METHOD cannot be loaded"):
        load_config("cg-digits", {"method": "lost"})
