"""The example package of a head, an objective, a metric and a callback: installed, it is used."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.models import HEADS, Output
from bmsfed_app.record.run import read_run
from client_app.app import app
from client_app.objectives import OBJECTIVES
from server_app.callbacks import CALLBACKS
from server_app.experiment import run_experiment
from server_app.metrics import METRICS
from server_app.run_folder import RunFolder
from tests.plugins import install

FOLDER = Path(__file__).resolve().parents[2] / "examples/own_package"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]


@pytest.fixture
def attentive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What pip would leave behind: the package, and its entry points."""
    registries = (HEADS, OBJECTIVES, METRICS, CALLBACKS)
    named = {"name": PROJECT["name"], "version": PROJECT["version"]}
    install(tmp_path / "site", monkeypatch, PROJECT["entry-points"], *registries, **named)
    monkeypatch.syspath_prepend(str(FOLDER))
    import attentive

    yield attentive
    del sys.modules["attentive"]


def test_an_experiment_uses_all_of_it(attentive: Any, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    small = {"clients": 4, "per_round": 2, "rounds": 2, "data_fraction": 0.1, "local_epochs": 1}
    config = load_config(str(FOLDER / "digits.yaml"), small)
    folder = RunFolder.create(tmp_path / "run", config)
    state = run_experiment(InlineGrid(app, 4), folder)

    assert {"head.query", "head.gate.gray", "head.value.colored"} <= set(state.arrays)
    found = read_run(folder.path)
    worst, plain = dict(found.values("worst-class")), dict(found.values("accuracy"))
    assert set(worst) == {0, 1, 2}
    assert all(worst[n] <= plain[n] for n in worst)
    board = events.EventAccumulator(str(folder.path / "losses"))
    board.Reload()
    shown = {tag: [e.value for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    losses: dict[str, list[float]] = {}
    for row in found.answers:
        losses.setdefault(row.client, []).append(row.losses["loss"])
    assert shown == {name: pytest.approx(values) for name, values in losses.items()}
    assert [(p["kind"], p["name"], p["package"], p["version"]) for p in found.info.plugins] == [
        ("head", "gated-attention", "attentive", "1.0.0"),
        ("objective", "focal", "attentive", "1.0.0"),
        ("metric", "worst-class", "attentive", "1.0.0"),
        ("callback", "loss-board", "attentive", "1.0.0"),
    ]


def test_its_formulas(attentive: Any) -> None:
    torch.manual_seed(0)
    head = attentive.GatedAttention({"a": 3, "b": 2}, 4, width=5)
    head.reset(torch.Generator().manual_seed(1))
    features = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    shares = head.attention(features)
    assert torch.allclose(shares.sum(dim=1), torch.ones(6))
    expected = head.bias + sum(
        shares[:, [i]] * z @ head.weight[m].T for i, (m, z) in enumerate(features.items())
    )
    assert torch.allclose(head(features), expected, atol=1e-6)
    alone = head({"a": features["a"]})
    assert torch.allclose(alone, features["a"] @ head.weight["a"].T + head.bias, atol=1e-6)

    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    output = Output({}, logits)
    plain = attentive.Focal(gamma=0.0).loss(output, labels)
    assert torch.allclose(plain, F.cross_entropy(logits, labels))
    p = logits.softmax(dim=1)[torch.arange(6), labels]
    by_hand = ((1 - p) ** 2 * -p.log()).mean()
    assert torch.allclose(attentive.Focal(gamma=2.0).loss(output, labels), by_hand)


def test_the_readme_counts_lines_as_they_are() -> None:
    rows = re.findall(r"\]\((\S+)\) \|.*\| (\d+) \|", (FOLDER / "README.md").read_text())
    counted = {file: len((FOLDER / file).read_text().splitlines()) for file, _ in rows}
    assert counted == {file: int(lines) for file, lines in rows}
    assert len(rows) == 3
    assert sum(counted.values()) < 120


def test_the_readme_shows_what_a_run_notes(attentive: Any) -> None:
    text = (FOLDER / "README.md").read_text()
    [block] = re.findall(r"```json\n(.*?)```", text, re.S)
    config = load_config(str(FOLDER / "digits.yaml"))
    assert json.loads(block) == config.plug_ins()[0].to_json()
