"""A metric that a callback declares is seen everywhere, and nothing that shows it knows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from bmsfed_app.report import write_report
from client_app.app import app
from server_app.console import TableCallback
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, Metric, ModalityStrategy, RoundReport
from strategies.testing import FakeGrid

pytestmark = pytest.mark.xdist_group("metrics")  # of one run


class Gap(Callback):
    """How far the modalities are apart, and how many clients trained each."""

    metrics: tuple[Metric, ...] = (
        Metric("gap", "gap of modalities", "%", column="gap", about="A gap is bad."),
        Metric("trained", "clients with {modality}", figure="clients", column="n {modality}"),
    )

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        report.metrics["gap"] = 0.5 / report.round
        told = [m for a in report.assignments for m in a.modalities]
        report.metrics["trained"] = {m: told.count(m) for m in strategy.state.modalities}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two rounds of FedAvg in this process, and what the console printed."""
    small: dict[str, Any] = {"clients": 3, "per_round": 2, "rounds": 2, "data_fraction": 0.1}
    config = load_config("cg-digits", small | {"method": "fedavg", "connect_timeout": 5})
    folder = RunFolder.create(tmp_path_factory.mktemp("metrics") / "run", config)
    lines: list[str] = []
    shown = [TableCallback(folder, lines.append), Gap()]
    run_experiment(InlineGrid(app, 3), folder, callbacks=shown)
    return folder.path, lines


def test_it_is_in_the_history_and_the_summary(run: tuple[Path, list[str]]) -> None:
    found = read_run(run[0])
    assert found.values("gap") == [(1, 0.5), (2, 0.25)]
    assert found.values("trained", "gray") == [(1, 2), (2, 2)]
    assert found.metric("gap") == Gap.metrics[0]
    summary = json.loads((run[0] / "summary.json").read_text())
    assert summary["gap"] == {"last": 0.25, "mean_last": 0.375, "rounds": [1, 2]}
    assert set(summary["trained"]) == {"colored", "gray"}
    assert {"accuracy", "head_accuracy_by_modality", "loss"} < set(summary)


def test_it_is_on_the_console(run: tuple[Path, list[str]]) -> None:
    [head] = [line for line in run[1] if line.lstrip().startswith("round")]
    assert head.split()[:9] == "round all colored gray gap n colored n gray".split()
    [row] = [line for line in run[1] if line.startswith("    2 ")]
    assert row.split()[4:7] == ["25.0", "2", "2"]
    at = run[1].index(next(line for line in run[1] if line.startswith("gap of modalities in %")))
    assert run[1][at + 1].split() == "gap of modalities 25.0 37.5".split()
    assert run[1][at + 2].startswith("clients ")


def test_it_is_in_the_table_and_figures(run: tuple[Path, list[str]], tmp_path: Path) -> None:
    page = write_report([run[0]], tmp_path / "report").read_text(encoding="utf-8")
    assert '<th scope="colgroup" colspan="2">gap of modalities</th>' in page
    assert '<td class="first">25.0</td><td>37.5</td>' in page
    assert "A gap is bad." in page
    assert "Gap of modalities by round" in page
    for name in ("gap-of-modalities", "clients"):
        assert (tmp_path / "report" / f"{name}.png").stat().st_size > 10_000


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    class Clash(Callback):
        metrics: tuple[Metric, ...] = (Metric("seconds", "seconds"),)

    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"))
    for callbacks, name in (([Clash()], "seconds"), ([Gap(), Gap()], "gap")):
        with pytest.raises(ValueError, match=f"metric '{name}' has a name that is taken"):
            run_experiment(FakeGrid({}), folder, callbacks=callbacks)
