"""What clients tell of their training is in the history, as means over a round's clients."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from server_app.told import ToldCallback
from strategies import ClientReport, FedAvg, Metric, RoundReport, ServerState
from tests.run_folders import rows

SHARE = Metric("share", "share of {modality}", "%")


def told(*clients: dict[str, float]) -> dict[str, float]:
    strategy = FedAvg(clients_per_round=1, seed=0)
    names = [f"encoders.{m}.weight" for m in ("a", "b", "c")]
    strategy.state = ServerState(arrays={n: np.zeros(1, np.float32) for n in names})
    report = RoundReport(1)
    report.clients = [
        ClientReport(f"k{i}", "train", ("a",), metrics=metrics) for i, metrics in enumerate(clients)
    ]
    ToldCallback([SHARE]).after_round(strategy, report)
    return report.metrics["share"]


def test_all_clients_count_the_same_and_who_tells_nothing_does_not_count() -> None:
    found = told({"share.a": 0.5, "loss": 1.0}, {"share.a": 0.0, "share.b": 1.0}, {})
    assert found == {"a": 0.25, "b": 1.0}


@pytest.mark.parametrize("wrong", [-0.5, 1.5, float("nan"), float("inf")])
def test_what_is_no_share_does_not_count(wrong: float) -> None:
    assert told({"share.a": wrong, "share.b": wrong}, {"share.a": 0.5}) == {"a": 0.5}


def test_conflicts_of_mmpareto_in_a_run(tmp_path: Path) -> None:
    small = {"clients": 3, "per_round": 2, "rounds": 1, "data_fraction": 0.2, "local_epochs": 1}
    small |= {"encoders": {"colored": "mlp", "gray": "mlp"}}
    config = load_config("cg-digits", small | {"method": "mmpareto"})
    folder = RunFolder.create(tmp_path / "run", config)
    run_experiment(InlineGrid(app, 3), folder)
    [last] = [r for r in rows(folder.path) if r["kind"] == "round" and r["round"] == 1]
    clients = [r["metrics"] for r in rows(folder.path) if r["kind"] == "client"]
    assert set(last["conflicts"]) == {"colored", "gray"}
    for modality, share in last["conflicts"].items():
        each = [c[f"conflicts.{modality}"] for c in clients if f"conflicts.{modality}" in c]
        assert len(each) == 2
        assert share == pytest.approx(fmean(each))
