"""The paper's own numbers beside the sweeps: `results/paper/tableN.csv`."""

import csv
import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT.parent / "shared/paper/bmsfed-eccv2024.txt"
COLUMNS = ["method", "dataset", "partition", "setting", "metric", "value"]
FILES = sorted((ROOT / "results/paper").glob("*.csv"))
#: Our metrics, as the paper's columns have them.
METRICS = {
    "accuracy_by_modality.audio": "A",
    "accuracy_by_modality.visual": "V",
    "accuracy": "A-V",
}
#: How the paper writes what is not our name in other letters.
PRINTED = {"fedavg-me": "FedAvg+ME", "divfl-me": "DivFL+ME"}

Cell = tuple[str, ...]  # method, dataset, partition, setting, metric


def numbers(file: Path) -> dict[Cell, str]:
    """Read a file's values as printed, in its order."""
    lines = file.read_text(encoding="utf-8").splitlines()
    table = list(csv.reader(line for line in lines if not line.startswith("#")))
    assert table[0] == COLUMNS
    assert len({tuple(row[:-1]) for row in table[1:]}) == len(table) - 1
    return {tuple(row[:-1]): row[-1] for row in table[1:]}


def test_there_is_a_file_for_every_table() -> None:
    assert [f.stem for f in FILES] == [f"table{n}" for n in range(1, 10)]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_file_is_a_whole_table_of_percentages_and_says_where_it_is_from(file: Path) -> None:
    found = numbers(file)
    methods = dict.fromkeys(cell[0] for cell in found)
    columns = dict.fromkeys(cell[1:] for cell in found)
    assert list(found) == [(m, *c) for m, c in product(methods, columns)]
    assert {cell[-1] for cell in found} <= set(METRICS)
    assert all(re.fullmatch(r"\d\d\.\d", value) for value in found.values())
    comments = [x for x in file.read_text(encoding="utf-8").splitlines() if x.startswith("#")]
    place = rf"2401.00403v2, Table {file.stem.removeprefix('table')}, (page \d+|Appendix \d\.\d): "
    assert re.search(place, comments[1])


def test_what_two_tables_show_is_the_same_in_both() -> None:
    # Table 5 is of other clients, whose names here are the same.
    seen: dict[Cell, str] = {}
    twice = 0
    for file in FILES:
        for cell, value in numbers(file).items() if file.stem != "table5" else ():
            twice += cell in seen
            assert seen.setdefault(cell, value) == value, (file.name, cell)
    assert twice > 50


@pytest.mark.skipif(not TEXT.is_file(), reason="the paper's text is not at hand")
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_numbers_are_the_papers(file: Path) -> None:
    number = file.stem.removeprefix("table")
    found = numbers(file)
    rows: dict[str, list[str]] = {}
    for (method, *_, metric), value in found.items():
        # Table 8 has a row for each metric.
        name = METRICS[metric] if number == "8" else PRINTED.get(method, method)
        rows.setdefault(name, []).append(value)
    # The text without references such as [21]; a row is a name and nothing but numbers.
    text = re.sub(r" \[\d+\]", "", TEXT.read_text(encoding="utf-8"))
    part = text.split(f"\nTable {number}:", 1)[-1].split(f" Table {number}:", 1)[-1]
    part = re.split(r"\n ?(?:Table \d:|Fig\. |\d\.\d [A-Z]|mization|selection strategy)", part)[0]
    printed = {
        name.lower(): values.split()
        for name, values in re.findall(r"^(\S+)((?: \d\d\.\d)+)$", part, re.M)
    }
    assert printed == {name.lower(): values for name, values in rows.items()}
