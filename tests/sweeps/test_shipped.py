"""The sweeps that ship: the paper's tables and figures, at three scales."""

import re
from datetime import date
from functools import cache
from pathlib import Path

import pytest

from bmsfed_app.sweeps import Sweep, load_sweep, read_sweep, sweep_names
from tests.processes import PATIENCE, Processes
from tests.sweeps.test_paper import numbers

ROOT = Path(__file__).resolve().parents[2]
SCALES = ["smoke", "desk", "full"]
TABLES = [f"table{n}" for n in range(1, 10)]
FIGURES = [f"figure{n}" for n in range(2, 8)]
NAMES = sorted([*TABLES, *FIGURES, "all-methods", "real-sets"])
#: Sets whose media no download gives.
BROUGHT = {"crema-d", "ave", "modelnet40", "crisismmd"}

loaded = cache(load_sweep)


def cells(sweep: Sweep) -> set[tuple[str, ...]]:
    return {(r.method, r.dataset, r.partition, r.setting) for r in sweep.runs}


def keys(name: str, scale: str) -> set[str]:
    return {r.key for r in loaded(name, scale).runs}


def test_there_is_a_sweep_for_every_table_and_figure_and_a_line_about_it() -> None:
    assert sweep_names() == NAMES
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \| [A-Z].* \| `", page, re.M) == [
        *TABLES,
        *FIGURES,
        "all-methods",
        "real-sets",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_every_scale_can_be(name: str) -> None:
    file = read_sweep(name)
    assert list(file.scales) == SCALES
    assert {e.name for e in file.datasets if e.needs} >= BROUGHT & {e.name for e in file.datasets}
    smoke, desk, full = (loaded(name, scale) for scale in SCALES)
    assert {r.dataset for r in smoke.runs} == {"cg-digits"}
    assert sum(r.config.rounds for r in smoke.runs) <= 150
    assert not BROUGHT & {r.dataset for r in desk.runs}
    least = 1 if name == "figure5" else 3  # which draws how the data lie
    for sweep in (desk, full):
        assert len({r.seed for r in sweep.runs}) >= least
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^\| `{name}` \|.*$", page, re.M)
    for sweep, column in ((desk, 3), (full, 4)):
        said = re.findall(r"`([\w-]+)`", line.split("|")[column])
        assert set(said or [r.dataset for r in desk.runs]) == {r.dataset for r in sweep.runs}


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_cells_are_those_of_the_full_scale(name: str) -> None:
    file = read_sweep(name)
    assert file.paper == name
    printed = numbers(ROOT / f"results/paper/{name}.csv")
    assert {cell[:-1] for cell in printed} <= cells(loaded(name, "full"))
    assert set(file.metric) == {metric.partition(".")[0] for *_, metric in printed}


@pytest.mark.parametrize("scale", SCALES)
def test_tables_and_figures_of_the_same_runs_share_their_folders(scale: str) -> None:
    whole = keys("table2", scale)
    for name in ("table3", "figure2", "figure6", "figure7"):
        assert keys(name, scale) <= whole
    assert keys("figure6", scale).isdisjoint(keys("figure7", scale))
    if scale != "full":  # where it is of CG-MNIST alone
        assert keys("table2", scale) <= keys("all-methods", scale)


@pytest.mark.parametrize("name", [*TABLES, *FIGURES])
def test_the_same_is_asked_of_sets_at_hand(name: str) -> None:
    runs = load_sweep(name, on=["avletters", "utd-mhad"]).runs
    assert {r.dataset for r in runs} == {"avletters", "utd-mhad"}
    assert {r.partition or r.setting for r in runs} == {
        r.partition or r.setting for r in loaded(name).runs
    }
    # Talkers and subjects are what they are: other numbers of clients need another partition.
    assert not [r for r in runs if r.config.partition == "natural"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.long] if i != date.today().toordinal() % 17 else [])
        for i, n in enumerate(NAMES)
    ],
)
def test_the_smoke_scale_runs(name: str, tmp_path: Path) -> None:
    """A sweep a day by turns; all of them by ``pytest -m long``."""
    processes = Processes(tmp_path)
    root = tmp_path / "runs"
    process = processes.start("bmsfed", "sweep", name, "--scale", "smoke", "--runs", str(root))
    code = process.wait(3 * PATIENCE)
    text = processes.text("bmsfed.log")
    assert code == 0, text
    count = len(loaded(name, "smoke").runs)
    assert f"{count} of {count} runs complete" in text
