"""The foreign project: its diffs are as shown and short, its four versions run."""

import difflib
import importlib
import logging
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord

from bmsfed_app.engine import InlineGrid, run_apps

FOLDER = Path(__file__).resolve().parents[2] / "examples/two_towers"


def diff(interface: str, context: int = 1) -> str:
    before, after = (FOLDER / "two_towers" / f"{interface}_{x}.py" for x in ("fedavg", "bmsfed"))
    lines = (p.read_text().splitlines(keepends=True) for p in (before, after))
    return "".join(difflib.unified_diff(*lines, before.name, after.name, n=context))


@pytest.mark.parametrize("interface", ["message", "classic"])
def test_the_readme_shows_the_diff_and_it_is_short(interface: str) -> None:
    shown = re.findall(r"```diff\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    assert diff(interface) in shown
    body = diff(interface).splitlines()[2:]
    added, removed = (sum(line.startswith(sign) for line in body) for sign in "+-")
    assert added + removed <= 40
    listed = (FOLDER.parent / "README.md").read_text()
    assert f"{interface}_bmsfed` | {added} added, {removed} removed |" in listed


def test_the_message_version_selects_and_learns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    app = importlib.import_module("two_towers.message_bmsfed")
    grid, told = InlineGrid(app.client_app, 6), []
    sent = grid.push_messages

    def push(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train":
                config = message.content["config"]
                assert isinstance(config, ConfigRecord)
                told.append((config["probe"], config["modalities"], len(message.content["arrays"])))
        return sent(messages)

    monkeypatch.setattr(grid, "push_messages", push)
    run_apps(app.server_app, grid, {"rounds": 5})
    both = [float(x) for x in re.findall(r"both +([\d.]+)", capsys.readouterr().out)]
    assert len(both) == 6
    assert both[-1] > 70 > 25 > both[0]
    assert [p for p, _, _ in told].count(True) == 6  # everybody is measured once
    whole = max(n for _, _, n in told)
    # Whoever trains its text alone is not sent the vision tower.
    assert {n for _, m, n in told if m == ["text"]} == {whole - 4}
    assert any(not p and m == ["text"] for p, m, _ in told)


@pytest.mark.e2e
@pytest.mark.xdist_group("ray")
def test_the_classic_version_runs_in_processes_of_ray(
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = "run.py classic_bmsfed --rounds 2 --clients 4 --ray"
    monkeypatch.setattr(sys, "argv", words.split())
    monkeypatch.syspath_prepend(str(FOLDER))
    with caplog.at_level(logging.INFO, "flwr"):
        runpy.run_path(str(FOLDER / "run.py"), run_name="__main__")
    assert len(re.findall(r"^round +\d+", capsys.readouterr().out, re.M)) == 3
    assert "round 2 trains" in caplog.text
    assert "left out" not in caplog.text
