"""The examples in the strategies' docstrings print what they say, with no Flower process."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import strategies

MODULES = [m.name for m in pkgutil.iter_modules(strategies.__path__, "strategies.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    if name in {"strategies.bmsfed", "strategies.messages", "strategies.testing"}:
        assert tried > 0


def test_importing_the_strategies_loads_neither_torch_nor_ray() -> None:
    code = "import sys, strategies; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert strategies.__all__ == sorted(strategies.__all__)
    assert {"BMSFed", "FedAvg", "ModalityStrategy", "ServerState"} <= set(strategies.__all__)
    for name in strategies.__all__:
        assert getattr(strategies, name).__doc__
