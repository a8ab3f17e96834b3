"""A sweep's report: values as the runs ended, the paper's beside them, nothing guessed."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from bmsfed_app.record.files import RunFolderError
from bmsfed_app.record.run import read_run
from bmsfed_app.report import ReportError
from bmsfed_app.report.earlier_runs import read_earlier
from bmsfed_app.report.leaderboard import leaderboard
from bmsfed_app.report.sweep_curves import largest_ratios, read_curves, shares_alone
from bmsfed_app.report.sweep_looks import looks
from bmsfed_app.report.sweep_page import latex, write_sweep_report
from bmsfed_app.report.sweep_results import Results, read_results
from bmsfed_app.report.sweep_tables import Table, tables
from bmsfed_app.sweeps import Sweep, is_sweep, load_sweep
from tests.run_folders import make_run

FILE: dict[str, Any] = {
    "title": "Digits & more",
    "baselines": ["fedavg"],
    "set": {"rounds": 3},
    "methods": ["fedavg", "bmsfed", "divfl"],
    "datasets": ["cg-digits"],
    "partitions": [
        {"name": "iid", "set": {"partition": "iid"}},
        {"name": "non-iid", "set": {"partition": "dirichlet", "alpha": 0.5}},
    ],
    "seeds": [0, 1, 2],
}


def sweep(tmp_path: Path, **changes: Any) -> Sweep:
    file = tmp_path / "digits.yaml"
    file.write_text(yaml.safe_dump(FILE | changes))
    return load_sweep(str(file))


PRECISIONS = ("auto", "bf16", "float32")


def run_all(found: Sweep, root: Path, values: dict[str, float], **info: Any) -> None:
    """Leave run folders: a method's last accuracy is its value and a hundredth for each seed."""
    for run in found.runs:
        if run.method not in values or (run.method, run.partition) == ("divfl", "non-iid"):
            continue
        last = values[run.method] + run.seed / 100
        made = [0.1, last - 0.2, last - 0.1, last]
        folder = make_run(
            run.folder(root),
            method=run.config.method,
            seed=run.seed,
            accuracies=made,
            config=run.config.model_dump(),
            info={"metrics": METRICS, **info},
        )
        (folder / "summary.json").write_text(json.dumps({"complete": True, "rounds": 3}))


METRICS = [
    {"name": "accuracy", "title": "all modalities", "unit": "%", "figure": "accuracy"},
    {
        "name": "accuracy_by_modality",
        "title": "{modality} alone",
        "unit": "%",
        "figure": "accuracy",
    },
]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = sweep(tmp_path)
    run_all(found, tmp_path / "runs", {"fedavg": 0.5, "bmsfed": 0.6, "divfl": 0.55})
    return read_results(found, tmp_path / "runs")


def test_tables_have_means_intervals_and_paired_tests(results: Results) -> None:
    closing, last, differences = tables(results)
    assert closing.heads == ["method", "cg-digits, iid", "cg-digits, non-iid", "mean rank"]
    # 0.5, 0.51, 0.52 less 0.1 each; half width 4.303 * 1 / sqrt(3)
    assert closing.rows[0] == ["fedavg", "41.0 ± 2.5", "41.0 ± 2.5", "2.0"]
    assert closing.rows[1] == ["bmsfed", "51.0 ± 2.5", "51.0 ± 2.5", "1.0"]
    assert closing.rows[2] == ["divfl", "46.0 ± 2.5", "", ""]  # empty, not guessed
    assert last.rows[1][1] == "61.0 ± 2.5"
    compared = ["+10.0 ± 0.0", "0.250", "0.500", "+10.0 ± 0.0", "0.250", "0.250"]
    assert differences.rows[0] == ["bmsfed", *compared]
    assert differences.rows[1] == ["divfl", "+5.0 ± 0.0", "0.250", "0.500", "", "", ""]
    assert "no p can be below 0.250" in differences.note
    assert [r.method for r in results.missing] == ["divfl"] * 3


def test_a_method_of_one_seed_is_no_test_that_others_are_adjusted_for(
    results: Results, tmp_path: Path
) -> None:
    for run in results.sweep.runs:
        if run.method == "divfl" and run.seed:
            shutil.rmtree(run.folder(tmp_path / "runs"), ignore_errors=True)
    differences = tables(read_results(results.sweep, tmp_path / "runs"))[2]
    assert differences.rows[0][:4] == ["bmsfed", "+10.0 ± 0.0", "0.250", "0.250"]
    assert differences.rows[1][:4] == ["divfl", "+5.0", "", ""]


def test_a_report_is_a_page_and_tables_for_papers(results: Results, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = write_sweep_report(results, out, "bmsfed sweep digits.yaml").read_text()
    assert "Digits &amp; more" in page
    assert "3 runs are not complete" in page
    assert page.count("data:image/png;base64,") == 2  # curves, balance
    text = (out / "table.md").read_text()
    assert "| `bmsfed` | 51.0 ± 2.5 | 51.0 ± 2.5 | 1.0 |" in text
    assert "- commits: 0123abc" in text
    assert "- rounds' time: 60 minutes in all" in text  # of 15 runs, four rows of a minute each
    tex = (out / "table.tex").read_text()
    assert r"bmsfed & 51.0 $\pm$ 2.5" in tex
    assert re.findall(r"(?<!\\)%.*Accuracy \(\\%\)", tex)
    rows = list(csv.DictReader((out / "table.csv").open()))
    [one] = [
        r
        for r in rows
        if (r["method"], r["partition"], r["metric"], r["statistic"])
        == ("bmsfed", "iid", "accuracy_by_modality.gray", "last")
    ]
    assert float(one["mean"]) == pytest.approx(61 / 3)
    assert one["n"] == "3"
    runs = list(csv.DictReader((out / "runs.csv").open()))
    assert len(runs) == 18
    assert [r["complete"] for r in runs].count("True") == 15
    assert float(runs[0]["accuracy.last"]) == pytest.approx(50.0)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    write_sweep_report(results, out, "again")  # over its own files
    (out / "index.html").write_text("mine")
    with pytest.raises(ReportError, match="was not written by a report of a sweep"):
        write_sweep_report(results, out, "again")


def test_latex_takes_names_as_they_stand() -> None:
    table = Table("a_b", ["x^2", "~", "{y}"], [["50%", r"c\d", "1 ± 2"]])
    found = latex(table).splitlines()
    assert found[0] == r"% a\_b"
    assert found[3] == r"x\textasciicircum{}2 & \textasciitilde{} & \{y\} \\"
    assert found[5] == r"50\% & c\textbackslash{}d & 1 $\pm$ 2 \\"


def test_the_papers_numbers_stand_beside_ours_and_others_below(tmp_path: Path) -> None:
    changes = {"datasets": ["cg-mnist"], "paper": "table2", "methods": ["fedavg", "bmsfed"]}
    found = sweep(tmp_path, **changes)
    run_all(found, tmp_path / "runs", {"fedavg": 0.5, "bmsfed": 0.6})
    closing, *_, theirs = tables(read_results(found, tmp_path / "runs"))
    assert closing.heads[1:5] == ["cg-mnist, iid", "paper", "cg-mnist, non-iid", "paper"]
    assert closing.rows[1][:5] == ["bmsfed", "51.0 ± 2.5", "70.2", "51.0 ± 2.5", "66.7"]
    assert "The paper's own numbers" in theirs.title
    assert theirs.heads[1] == "crema-d, iid"
    assert theirs.rows[-2][:3] == ["fedmsplit", "52.4", "51.6"]


def test_settings_have_a_figure_and_several_metrics_columns(tmp_path: Path) -> None:
    settings = [{"name": f"{n} epochs", "set": {"local_epochs": n}} for n in (1, 3)]
    metric = ["accuracy", "accuracy_by_modality"]
    changes = {"settings": settings, "partitions": [], "metric": metric}
    found = sweep(tmp_path, **changes)
    run_all(found, tmp_path / "runs", {"fedavg": 0.5, "bmsfed": 0.6})
    results = read_results(found, tmp_path / "runs")
    closing = tables(results)[0]
    assert closing.heads[1:4] == [
        "cg-digits, 1 epochs: all modalities",
        "cg-digits, 1 epochs: colored alone",
        "cg-digits, 1 epochs: gray alone",
    ]
    write_sweep_report(results, tmp_path / "out", "x")
    assert (tmp_path / "out" / "settings.png").read_bytes().startswith(b"\x89PNG")
    assert "| method | cg-digits, 1 epochs | cg-digits, 3" in leaderboard([results], [""], [""])
    # Beside others they stand on their own page alone.
    run_all(plain := sweep(tmp_path), tmp_path / "runs", {"fedavg": 0.5})
    both = [results, read_results(plain, tmp_path / "runs")]
    assert "| method | cg-digits, iid | cg-digits, non-iid |\n" in leaderboard(
        both, *2 * [["", ""]]
    )


def test_a_leaderboard_sums_sweeps_up(results: Results) -> None:
    text = leaderboard([results, results], ["one command", "another"], ["a/table.md", "b"])
    assert "- [Digits & more](a/table.md): `one command`; seeds 0, 1, 2; runs 15 of 18" in text
    assert "| method | cg-digits, iid | cg-digits, non-iid |\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [  # best first
        "| `bmsfed` | **51.0 ± 2.5** | **51.0 ± 2.5** |",
        "| `divfl` | 46.0 ± 2.5 |  |",
        "| `fedavg` | 41.0 ± 2.5 | 41.0 ± 2.5 |",
    ]
    assert "- Digits & more: `bmsfed` 1.0, `fedavg` 2.0" in text


def test_a_leaderboard_has_what_other_sweeps_ran_in_the_same_place(
    results: Results, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    others = [
        sweep(tmp_path, methods=["fedavg", "fedavg-me"]),  # shares FedAvg's runs
        sweep(tmp_path, methods=["fedavg", "divfl-me"], set={"rounds": 3, "lr": 0.5}),
    ]
    for found in others:
        run_all(found, runs, {"fedavg-me": 0.65, "divfl-me": 0.8})
    read = [results, *(read_results(found, runs) for found in others)]
    text = leaderboard(read, *2 * [["", "", ""]])
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["fedavg-me", "bmsfed", "divfl", "fedavg"]
    assert rows[0] == "| `fedavg-me` | **56.0 ± 2.5** | **56.0 ± 2.5** |"
    assert rows[3] == "| `fedavg` | 41.0 ± 2.5 | 41.0 ± 2.5 |"


def test_a_leaderboard_is_of_one_metric(results: Results, tmp_path: Path) -> None:
    alone = read_results(sweep(tmp_path, metric="accuracy_by_modality"), tmp_path / "runs")
    # Without a word on what is each modality's, the first of these took all columns.
    heads = leaderboard([results, alone], *2 * [["", ""]]).splitlines()[4]
    assert heads == "| method | cg-digits, iid | cg-digits, non-iid |"
    heads = leaderboard([alone, results], *2 * [["", ""]]).splitlines()[4]
    assert heads.startswith("| method | cg-digits, iid: colored alone | cg-digits, iid: gray alone")


def test_what_an_earlier_report_tells_counts_where_folders_are_gone(
    results: Results, tmp_path: Path
) -> None:
    write_sweep_report(results, tmp_path / "a", "x")
    runs, found = tmp_path / "runs", results.sweep
    gone = [run for run in found.runs if run.method == "divfl" or run.seed == 1]
    for run in gone:
        shutil.rmtree(run.folder(runs), ignore_errors=True)
    again = read_results(found, runs, [tmp_path])
    write_sweep_report(again, tmp_path / "b", "x")
    assert (tmp_path / "b/table.csv").read_text() == (tmp_path / "a/table.csv").read_text()
    assert (tmp_path / "b/runs.csv").read_text() == (tmp_path / "a/runs.csv").read_text()
    text = (tmp_path / "b/table.md").read_text()
    assert "runs: 15 of 18 complete" in text
    assert "seeds: 0, 1, 2" in text
    assert "Of 7 runs the numbers are from an earlier report's runs.csv" in text
    assert "no numbers by round" not in text
    nothing = read_results(found, tmp_path / "none", [tmp_path / "b" / "runs.csv"])
    assert tables(nothing)[:2] == tables(results)[:2]
    write_sweep_report(nothing, tmp_path / "c", "x")
    for name in ("table.csv", "runs.csv", "curves.csv", "curves.png", "balance.png"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name


def test_of_precision_auto_a_report_counts_runs_of_each(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    auto, half, exact = (sweep(tmp_path, set={"rounds": 3, "precision": p}) for p in PRECISIONS)
    run_all(replace(auto, runs=auto.runs[:3]), runs, {"fedavg": 0.5}, precision="float32")
    run_all(replace(exact, runs=exact.runs[6:]), runs, {"fedavg": 0.6, "divfl": 0.7})
    run_all(half, tmp_path / "gone", {"bmsfed": 0.8, "divfl": 0.2})
    write_sweep_report(read_results(half, tmp_path / "gone"), tmp_path / "half", "x")
    assert "- precision: bf16\n" in (tmp_path / "half/table.md").read_text()

    found = read_results(auto, runs, [tmp_path / "half"])
    methods = {run.key: run.method for run in auto.runs}
    assert {(methods[key], origin.precision) for key, origin in found.origins.items()} == {
        ("fedavg", "float32"),
        ("bmsfed", "bf16"),
        ("divfl", "bf16"),
    }
    write_sweep_report(found, tmp_path / "both", "x")
    text = (tmp_path / "both/table.md").read_text()
    assert "- precision: bf16 (9 runs), float32 (5 runs)\n" in text
    # Once more, of what the report alone tells: which run each line is of is in it.
    again = read_results(auto, tmp_path / "none", [tmp_path / "both"])
    write_sweep_report(again, tmp_path / "again", "x")
    for name in ("runs.csv", "table.csv", "curves.csv"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "both" / name).read_text()


def test_curves_are_kept_by_round_as_readers_see_them(results: Results, tmp_path: Path) -> None:
    write_sweep_report(results, tmp_path, "x")
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [*rows[0]][:8] == [
        *("method", "dataset", "partition", "setting", "seed", "folder", "started", "round")
    ]
    first = [r for r in rows if r["folder"] == results.sweep.runs[0].name]
    assert [r["round"] for r in first] == ["0", "1", "2", "3"]
    assert [r["accuracy"] for r in first] == ["10", "30", "40", "50"]
    assert [r["imbalance_ratio"] for r in first] == ["", "2", "2", "2"]
    assert [r["train_less"] for r in first] == ["", "50", "50", "50"]
    known = results.curves[results.sweep.runs[0].key]
    told = read_curves(tmp_path / "curves.csv")[first[0]["folder"], first[0]["started"]]
    assert told.keys() == known.keys()
    for name, by_round in known.items():
        assert told[name] == pytest.approx(by_round, rel=1e-5), name


def test_curves_keep_their_order_whichever_begins_first(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    file.write_text("folder,started,round,late,early\na,x,0,,1\na,x,1,2,3\n")
    [curves] = read_curves(file).values()
    assert list(curves.items()) == [("late", {1: 2.0}), ("early", {0: 1.0, 1: 3.0})]


def test_figures_by_round_stay_where_most_runs_have_no_numbers_by_round(
    results: Results, tmp_path: Path
) -> None:
    write_sweep_report(results, tmp_path / "b", "x")
    (tmp_path / "b/curves.csv").unlink()  # as reports of earlier versions were
    nothing = read_results(results.sweep, tmp_path / "none", [tmp_path / "b"])
    page = write_sweep_report(nothing, tmp_path / "c", "x").with_name("table.md")
    assert "![" not in page.read_text()
    assert (
        "Of 15 runs there are no numbers by round: figures by round lack them." in page.read_text()
    )
    before = (tmp_path / "b/curves.png").read_bytes()
    page = write_sweep_report(nothing, tmp_path / "b", "x").with_name("table.md")
    assert (tmp_path / "b/curves.png").read_bytes() == before
    assert "figures by round are an earlier report's" in page.read_text()
    assert "![By round](curves.png)" in page.read_text()


def test_curves_of_another_time_are_not_taken_for_a_runs(results: Results, tmp_path: Path) -> None:
    write_sweep_report(results, tmp_path, "x")
    file = tmp_path / "curves.csv"
    rows = list(csv.reader(file.open()))
    started = rows[0].index("started")
    with file.open("w") as out:
        csv.writer(out).writerows(
            [rows[0], *([*r[:started], "then", *r[started + 1 :]] for r in rows[1:])]
        )
    told = read_results(results.sweep, tmp_path / "none", [tmp_path])
    assert told.told == 15
    assert not told.curves


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("folder,started,accuracy\nx,y,1\n", "it has no column 'round'"),
        ("folder,started,round,accuracy\nx,y,1,much\n", "much"),
        ("folder,started,round,accuracy\nx\n", "invalid literal"),
    ],
)
def test_curves_that_no_report_wrote_are_refused(
    results: Results, text: str, said: str, tmp_path: Path
) -> None:
    write_sweep_report(results, tmp_path, "x")
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(RunFolderError, match=rf"curves.csv' is not what.*{said}.*remove it"):
        read_earlier([tmp_path])


def test_metrics_that_no_run_at_hand_declares_are_kept_as_they_were_shown(
    results: Results, tmp_path: Path
) -> None:
    write_sweep_report(results, tmp_path / "a", "x")
    file = tmp_path / "a/runs.csv"
    lines = list(csv.DictReader(file.open()))
    for line in lines:
        for name, value in {"uar": "30.5", "conflicts.gray": "12.5", "mine": "0.25"}.items():
            value = value if line["complete"] == "True" else ""
            line |= {f"{name}.mean_last": value, f"{name}.last": value}
    with file.open("w") as out:
        table = csv.DictWriter(out, lines[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    for root in (tmp_path / "none", tmp_path / "runs"):
        again = read_results(results.sweep, root, [file])
        assert again.told == (15 if root.name == "none" else 0)
    again = read_results(results.sweep, tmp_path / "none", [file])
    write_sweep_report(again, tmp_path / "b", "x")
    for line, before in zip(csv.DictReader((tmp_path / "b/runs.csv").open()), lines, strict=True):
        assert line == before
    assert again.metrics["uar"].unit == "%"
    assert again.label("conflicts.gray") == "conflicts of gray"


def test_the_lower_loss_ranks_first_and_has_decimals(tmp_path: Path) -> None:
    found = sweep(tmp_path, metric="loss", methods=["fedavg", "bmsfed"])
    run_all(found, tmp_path / "runs", {"fedavg": 0.5, "bmsfed": 0.6})
    older = {"name": "loss", "title": "loss"}  # as versions declared it that knew no direction
    for run in found.runs:
        folder = run.folder(tmp_path / "runs")
        info = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(info | {"metrics": [older]}))
        rows = [json.loads(x) for x in (folder / "history.jsonl").read_text().splitlines()]
        lines = [
            json.dumps(r | ({"loss": 1 - r["accuracy"]} if "accuracy" in r else {})) for r in rows
        ]
        (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    results = read_results(found, tmp_path / "runs")
    closing, _, differences, *_ = tables(results)
    assert closing.rows[0] == ["fedavg", "0.590 ± 0.025", "0.590 ± 0.025", "2.0"]
    assert closing.rows[1] == ["bmsfed", "0.490 ± 0.025", "0.490 ± 0.025", "1.0"]
    assert differences.rows[0][:2] == ["bmsfed", "-0.100 ± 0.000"]
    assert "in points" not in differences.note
    board = leaderboard([results], ["x"], ["y"])
    assert "| `bmsfed` | **0.490 ± 0.025** | **0.490 ± 0.025** |\n| `fedavg` |" in board
    assert "`bmsfed` 1.0, `fedavg` 2.0" in board


def test_a_loss_that_is_not_finite_is_told_and_ranks_last_without_a_test(tmp_path: Path) -> None:
    found = sweep(
        tmp_path, metric="loss", methods=["fedavg", "bmsfed", "divfl"], baselines=["divfl"]
    )
    runs, metrics = tmp_path / "runs", [*METRICS, {"name": "loss", "title": "loss"}]
    diverged = {("fedavg", "iid"): math.nan, ("bmsfed", "non-iid"): math.inf}
    for run in found.runs:
        loss = 1.0 + run.seed / 10 + (run.method == "bmsfed")
        if run.seed == 1:
            loss = diverged.get((run.method, run.partition), loss)
        folder = make_run(
            run.folder(runs),
            method=run.config.method,
            seed=run.seed,
            config=run.config.model_dump(),
            info={"metrics": metrics},
            change={n: {"loss": loss} for n in range(4)},
        )
        (folder / "summary.json").write_text(json.dumps({"complete": True, "rounds": 3}))
    results = read_results(found, runs)
    closing, _, differences, *_ = tables(results)
    assert closing.rows == [
        ["fedavg", "nan", "1.100 ± 0.248", "2.2"],
        ["bmsfed", "2.100 ± 0.248", "inf", "2.5"],
        ["divfl", "1.100 ± 0.248", "1.100 ± 0.248", "1.2"],
    ]
    assert differences.rows == [
        ["fedavg", "nan", "", "", "+0.000 ± 0.000", "1.000", "1.000"],
        ["bmsfed", "+1.000 ± 0.000", "0.250", "0.250", "+inf", "", ""],
    ]
    write_sweep_report(results, tmp_path / "a", "x")
    told = read_results(found, tmp_path / "none", [tmp_path / "a"])
    assert tables(told) == tables(results)
    write_sweep_report(told, tmp_path / "b", "x")
    for name in ("table.csv", "runs.csv", "curves.csv"):
        assert (tmp_path / "b" / name).read_text() == (tmp_path / "a" / name).read_text()


def test_a_report_has_the_order_of_the_sweep_whatever_it_was_read_of(
    results: Results, tmp_path: Path
) -> None:
    runs, found = tmp_path / "runs", results.sweep
    for run in found.runs:
        if (file := run.folder(runs) / "run.json").exists():
            info = json.loads(file.read_text()) | {"commit": run.method}
            if run.method == "bmsfed":
                info["metrics"] = METRICS[::-1]
            file.write_text(json.dumps(info))
    write_sweep_report(read_results(found, runs), tmp_path / "a", "x")
    for run in found.runs:
        if run.method == "fedavg":
            shutil.rmtree(run.folder(runs))
    write_sweep_report(read_results(found, runs, [tmp_path / "a"]), tmp_path / "b", "x")
    assert (tmp_path / "b/runs.csv").read_text() == (tmp_path / "a/runs.csv").read_text()
    assert "- commits: fedavg, bmsfed, divfl\n" in (tmp_path / "b/table.md").read_text()


def test_a_report_says_which_runs_saw_different_data(results: Results, tmp_path: Path) -> None:
    found, runs = results.sweep, tmp_path / "runs"
    for run in found.runs:
        if (file := run.folder(runs) / "run.json").exists() and run.partition == "iid":
            data = "a" * 16 if run.method == "fedavg" else "b" * 16
            file.write_text(json.dumps(json.loads(file.read_text()) | {"data": data}))
    told = f"on cg-digits, iid saw different data (fingerprints {'a' * 16}, {'b' * 16}): do not"
    write_sweep_report(read_results(found, runs), tmp_path / "a", "x")
    assert told in (text := (tmp_path / "a/table.md").read_text())
    assert "non-iid saw" not in text
    nothing = read_results(found, tmp_path / "none", [tmp_path / "a"])
    write_sweep_report(nothing, tmp_path / "b", "x")
    assert told in (tmp_path / "b/table.md").read_text()


def test_a_run_made_again_since_counts_before_what_is_told_of_it(
    results: Results, tmp_path: Path
) -> None:
    write_sweep_report(results, tmp_path / "a", "x")
    file = tmp_path / "a/runs.csv"
    lines = list(csv.DictReader(file.open()))
    first = lines[0]["folder"]
    for number, (started, accuracy) in enumerate({"2026-01-02": "7", "2026-01-01": "9"}.items()):
        lines[0] |= {"started": started, "accuracy.last": accuracy, "accuracy.mean_last": accuracy}
        with (tmp_path / f"{number}.csv").open("w") as out:
            table = csv.DictWriter(out, lines[0].keys())
            table.writeheader()
            table.writerows(lines)
    told = read_earlier([tmp_path / "0.csv", tmp_path / "1.csv"])
    assert told[first].values["accuracy"] == {"last": 7, "mean_last": 7}
    at_hand = read_results(results.sweep, tmp_path / "runs", [tmp_path / "0.csv"])
    assert at_hand.values == results.values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no runs.csv at"),
        ("a,b\n1,2\n", "it has no column 'commit'"),
        ("folder,complete,seconds,commit,started,hardware\nx,True,long,a,b,c\n", "'long'"),
        (
            "folder,complete,accuracy.mean_last,accuracy.last,seconds,commit,started,hardware\n"
            "x,True,1,,3,a,b,c\n",
            "convert",
        ),
    ],
)
def test_what_no_report_wrote_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RunFolderError, match=said):
        read_earlier([file])
    if text is None:
        with pytest.raises(RunFolderError, match=said):
            read_earlier([tmp_path])


def test_a_folder_of_another_configuration_or_version_is_refused(
    results: Results, tmp_path: Path
) -> None:
    run = results.sweep.runs[0]
    file = run.folder(tmp_path / "runs") / "config.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(config | {"lr": 0.5}))
    with pytest.raises(RunFolderError, match="is a run of another configuration"):
        read_results(results.sweep, tmp_path / "runs")
    file.write_text(yaml.safe_dump(config | {"old_key": 1}))
    with pytest.raises(RunFolderError, match=r"another version.*unknown key 'old_key'"):
        read_results(results.sweep, tmp_path / "runs")


def test_the_command_reports_and_says_what_to_run_first(results: Results, tmp_path: Path) -> None:
    file, runs = results.sweep.source, str(tmp_path / "runs")
    out, board = str(tmp_path / "out"), str(tmp_path / "board.md")
    asked = ["report", file, "--runs", runs, "--out", out, "--leaderboard", board]
    done = CliRunner().invoke(cli, asked)
    assert done.output.splitlines() == [f"{out}/index.html", board]
    assert "](out/table.md): `bmsfed sweep" in (tmp_path / "board.md").read_text()
    asked = ["report", file, "--runs", str(tmp_path / "none"), "--on", "cg-digits"]
    done = CliRunner().invoke(cli, [*asked, "--set", "rounds=7", "--set", "encoders={gray: mlp}"])
    assert isinstance(done.exception, ReportError)
    told = f"bmsfed sweep {file} --scale desk --on cg-digits --set rounds=7"
    assert f"run `{told} --set 'encoders={{gray: mlp}}'` first" in str(done.exception)


def test_a_report_does_not_write_over_what_it_lacks(results: Results, tmp_path: Path) -> None:
    runs, file = tmp_path / "runs", tmp_path / "out/runs.csv"
    asked = ["report", results.sweep.source, "--runs", str(runs), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(cli, asked).exit_code == 0
    before = file.read_text()
    for run in results.sweep.runs[1:]:  # the others' folders are another machine's now
        shutil.rmtree(run.folder(runs), ignore_errors=True)
    done = CliRunner().invoke(cli, asked)
    assert isinstance(done.exception, ReportError)
    assert "tells of 14 complete runs that this report would lack" in str(done.exception)
    assert file.read_text() == before
    assert CliRunner().invoke(cli, [*asked, "--also", str(tmp_path / "out")]).exit_code == 0
    assert file.read_text() == before
    file.write_text("a,b\n1,2\n")
    done = CliRunner().invoke(cli, asked)
    assert "is not what a report of a sweep writes: name another" in str(done.exception)


def test_a_shipped_sweep_goes_before_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table2").mkdir()  # as `bmsfed report table2 --out table2` leaves it
    assert is_sweep("table2")
    Path("table2/config.yaml").touch()
    assert not is_sweep("table2")  # a run


def test_of_several_sweeps_one_without_runs_is_left_out(results: Results, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(FILE | {"set": {"rounds": 9}}))
    file, runs, out = results.sweep.source, str(tmp_path / "runs"), tmp_path / "out"
    asked = ["report", file, str(other), "--runs", runs, "--out", str(out)]
    done = CliRunner().invoke(cli, [*asked, "--leaderboard", str(out / "README.md")])
    assert done.exit_code == 0
    first, *others = done.output.splitlines()
    assert first == f"{other}: no run is complete, left out"
    assert others == [str(out / "digits/index.html"), str(out / "README.md")]


def test_of_many_methods_the_baselines_and_the_best_have_colours(tmp_path: Path) -> None:
    names = ["fedavg", *(f"fedavg-0.{n}" for n in range(1, 10)), "pow-d", "bmsfed"]
    found = sweep(tmp_path, methods=names, partitions=[], seeds=[0])
    run_all(found, tmp_path / "runs", {name: 0.9 - n / 100 for n, name in enumerate(names[::-1])})
    drawn = looks(read_results(found, tmp_path / "runs"))
    assert list(drawn) == names
    assert [m for m, look in drawn.items() if look["color"] == "0.8"] == [
        "fedavg-0.1",
        "fedavg-0.2",
    ]


def test_balance_is_the_weak_ones_ratio_and_who_trains_alone(
    results: Results, tmp_path: Path
) -> None:
    # Ratios are 1 and 2 after each round; of two clients one trains gray alone.
    run = read_run(results.sweep.runs[0].folder(tmp_path / "runs"))
    assert set(largest_ratios(run).values()) == {2.0}
    assert min(largest_ratios(run)) == 1
    assert set(shares_alone(run).values()) == {50.0}
    page = write_sweep_report(results, tmp_path / "out", "x").read_text()
    assert "Balance of modalities" in page
    assert (tmp_path / "out/balance.png").read_bytes().startswith(b"\x89PNG")


def test_shares_alone_are_over_the_rounds_before(tmp_path: Path) -> None:
    both, gray = {"client-00": ["colored", "gray"]}, {"client-00": ["gray"]}
    change = {n: {"assignments": gray if n > 5 else both} for n in range(1, 8)}
    run = read_run(make_run(tmp_path / "run", accuracies=[0.1] * 8, change=change))
    assert list(shares_alone(run).values()) == [0, 0, 0, 0, 0, 20, 40]
