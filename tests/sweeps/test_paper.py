"""The sweeps that ship, and the paper's own numbers beside them."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from bmsfed_app.sweeps import load_sweep, read_sweep, sweep_names

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = sorted((ROOT / "results" / "paper").glob("*.csv"))
PAPER = ROOT.parent / "shared" / "paper" / "bmsfed-eccv2024.txt"


def numbers(file: Path) -> list[dict[str, str]]:
    lines = [x for x in file.read_text().splitlines() if not x.startswith("#")]
    return list(csv.DictReader(lines))


def test_every_table_and_figure_has_a_file() -> None:
    wanted = [f"table{i}" for i in range(1, 10)] + [f"figure{i}" for i in range(2, 8)]
    assert set(wanted) <= set(sweep_names())
    assert [f.stem for f in NUMBERS] == [f"table{i}" for i in range(1, 10)]


@pytest.mark.parametrize("name", sweep_names())
def test_every_run_at_every_scale_is_one_that_can_be(name: str) -> None:
    file = read_sweep(name)
    assert set(file.scales) == {"smoke", "desk", "full"}
    for scale in file.scales:
        found = load_sweep(name, scale)
        assert {r.seed for r in found.runs} == set(file.scales[scale].seeds or file.seeds)
        if scale == "smoke":
            assert {r.dataset for r in found.runs} == {"cg-digits"}  # needs no data
            assert sum(r.config.rounds for r in found.runs) <= 150


@pytest.mark.parametrize("file", NUMBERS, ids=lambda f: f.stem)
def test_the_papers_numbers_are_of_rows_and_columns_that_the_sweep_has(file: Path) -> None:
    sweep = read_sweep(file.stem)
    assert sweep.paper == file.stem
    known = {
        axis: {e.name for e in getattr(sweep, f"{axis}s")} | {""}
        for axis in ("method", "dataset", "partition", "setting")
    }
    rows = numbers(file)
    for row in rows:
        for axis, names in known.items():
            assert row[axis] in names, row
        assert 0 < float(row["value"]) < 100
    cells = [tuple(v for k, v in row.items() if k != "value") for row in rows]
    assert len(cells) == len(set(cells))


@pytest.mark.skipif(not PAPER.is_file(), reason="needs the paper's text")
@pytest.mark.parametrize("file", NUMBERS, ids=lambda f: f.stem)
def test_they_are_the_papers(file: Path) -> None:
    """As many of each number as the rows of the table have, wherever in the text it begins."""
    text = PAPER.read_text()
    number = file.stem.removeprefix("table")
    start = text.index(f"Table {number}:")
    lines = text[start : start + 1800].splitlines()[2:]
    title = re.compile(r"^\s*(Table|Fig\.) ?\d+[:.]")
    stop = next((i for i, line in enumerate(lines) if title.match(line)), len(lines))
    there = Counter(re.findall(r"(?<![\d.=\-])\d\d\.\d(?!\d)", "\n".join(lines[:stop])))
    ours = Counter(row["value"] for row in numbers(file))
    assert not ours - there, ours - there
