"""Callbacks by name: from a line of the configuration to history, report and TensorBoard."""

import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.evaluation import Evaluator
from server_app.experiment import build_evaluator, initial_model, run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, RoundReport
from tests.e2e.conftest import free_port

SMALL: dict[str, Any] = {"clients": 3, "per_round": 2, "data_fraction": 0.1, "method": "fedavg"}
SMALL |= {"encoders": {"colored": "mlp", "gray": "mlp"}}


def experiment(rounds: int, callbacks: dict[str, Any]) -> ExperimentConfig:
    more = {"rounds": rounds, "callbacks": callbacks, "connect_timeout": 5}
    return load_config("cg-digits", SMALL | more)


def run(path: Path, config: ExperimentConfig) -> RunFolder:
    folder = RunFolder.create(path, config)
    run_experiment(InlineGrid(app, 3), folder)
    return folder


def test_accuracy_without_a_modality_and_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    wanted = {"missing-modality": {"every": 2}, "tensorboard": {}}
    folder = run(tmp_path / "run", experiment(3, wanted))
    found = read_run(folder.path)
    looked = found.values("accuracy_without", "gray")
    assert [n for n, _ in looked] == [2, 3]
    # Without gray, the head sees colored alone.
    assert looked == found.values("head_accuracy_by_modality", "colored")[-2:]
    written = events.EventAccumulator(str(folder.path / "tensorboard"))
    written.Reload()
    assert [e.step for e in written.Scalars("accuracy_without/gray")] == [2, 3]
    assert [e.value for e in written.Scalars("accuracy")] == pytest.approx(
        [v for _, v in found.values("accuracy")]
    )


class Scraped(Callback):
    """Reads /metrics as Prometheus does, after every round, and remembers the round's report."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.pages: list[dict[str, float]] = []
        self.reports: list[RoundReport] = []

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        self.reports.append(report)
        with urllib.request.urlopen(self.url, timeout=600) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        self.pages.append({name: float(value) for name, value in pairs})


def test_prometheus_scrapes_the_rounds(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    port = free_port()
    config = experiment(2, {"prometheus": {"port": port}})
    folder, scraped = RunFolder.create(tmp_path / "run", config), Scraped(port)
    run_experiment(InlineGrid(app, 3), folder, callbacks=[scraped])
    rows = [r for r in read_run(folder.path).rounds if r.round]
    assert [page["bmsfed_round"] for page in scraped.pages] == [1, 2]
    for page, row in zip(scraped.pages, rows, strict=True):
        assert page["bmsfed_rounds"] == 2
        for name in ("accuracy", "loss"):
            assert page[f'bmsfed_metric{{modality="",name="{name}"}}'] == row.metrics[name]
        for modality, ratio in row.ratio.items():
            assert page[f'bmsfed_ratio{{modality="{modality}"}}'] == ratio
        states = {s: page[f'bmsfed_clients{{state="{s}"}}'] for s in ("known", "trained", "failed")}
        assert states == {"known": 3, "trained": 2, "failed": 0}
    last = scraped.pages[-1]
    assert last['bmsfed_bytes_total{direction="down"}'] == sum(r.bytes_down for r in rows)
    assert last['bmsfed_bytes_total{direction="up"}'] == sum(r.bytes_up for r in rows)
    assert last["bmsfed_round_seconds_total"] == pytest.approx(sum(r.seconds for r in rows))
    with pytest.raises(urllib.error.URLError):  # the run is over
        urllib.request.urlopen(scraped.url, timeout=600)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port} .*give it another port"):
            run(tmp_path / "run", experiment(1, {"prometheus": {"port": port}}))


def test_any_subset_of_the_modalities_can_be_evaluated() -> None:
    config = experiment(1, {})
    evaluator: Evaluator = build_evaluator(config)
    model = initial_model(config)
    whole = evaluator(model)
    found = evaluator.accuracies(model, {"all": ("colored", "gray"), "g": ["gray"], "none": []})
    assert found == {"all": whole.accuracy, "g": whole.by_head["gray"]}


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        ({"tensorbord": {}}, r"unknown callback 'tensorbord'; did you mean 'tensorboard'\?"),
        (
            {"missing-modality": {"evry": 2}},
            r"missing-modality: .*'evry'; did you mean 'every'",
        ),
        (
            {"missing-modality": {"every": 0}},
            "callback missing-modality: every: 0 is no number of rounds",
        ),
    ],
)
def test_a_callback_that_is_not_there_is_refused_before_any_round(
    callbacks: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        run(tmp_path / "run", experiment(1, callbacks))
