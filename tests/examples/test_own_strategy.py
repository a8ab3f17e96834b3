"""The example of a strategy of one's own: its own tests, its length, its README."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.config import load_config
from bmsfed_app.methods import METHODS, MethodSettings

FOLDER = Path(__file__).resolve().parents[2] / "examples/own_strategy"
POINT = EntryPoint("least-trained", "own_methods:LeastTrainedMethod", "bmsfed.methods")


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
    monkeypatch.setitem(vars(METHODS), "_points", {"least-trained": [POINT]})
    module = type(sys)("own_methods")
    module.LeastTrainedMethod = names["LeastTrainedMethod"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_methods", module)
    config = load_config("cg-digits", {"method": "least-trained"})
    strategy = config.method_settings().strategy(clients_per_round=2)
    assert type(strategy).__name__ == "LeastTrained"


def test_a_method_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("lost", "no_such_package:METHOD", "bmsfed.methods")
    monkeypatch.setitem(vars(METHODS), "_points", {"lost": [broken]})
    with pytest.raises(ValueError, match=r"method 'lost' of no_such_package:METHOD cannot be"):
        load_config("cg-digits", {"method": "lost"})


@pytest.mark.parametrize(
    ("thing", "fault"),
    [(int, "is no subclass of .*MethodSettings"), (MethodSettings, "lacks .* 'summary'")],
)
def test_what_is_no_method_is_refused(
    monkeypatch: pytest.MonkeyPatch, thing: type, fault: str
) -> None:
    module = type(sys)("no_methods")
    module.Thing = thing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_methods", module)
    point = EntryPoint("odd", "no_methods:Thing", "bmsfed.methods")
    monkeypatch.setitem(vars(METHODS), "_points", {"odd": [point]})
    with pytest.raises(ValueError, match=f"method 'odd': no_methods:Thing {fault}"):
        load_config("cg-digits", {"method": "odd"})
