"""Reports from run folders that the tests write themselves."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from bmsfed_app.record.evaluation import ModelViews, RunEvaluation, SplitViews
from bmsfed_app.record.files import RunFolderError
from bmsfed_app.record.origin import source_hash
from bmsfed_app.record.run import read_run
from bmsfed_app.report import ReportError, write_report
from bmsfed_app.report.figures import bin_width, selection_counts
from bmsfed_app.report.statistics import mean_and_interval
from server_app.tally import Tally
from tests.run_folders import MODALITIES, make_run

FIGURES = ["accuracy", "loss", "ratio", "selection", "classes", "traffic"]


class _Page(HTMLParser):
    """Collects the page's tags, its table rows and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self.cell = True
        elif tag == "br" and self.cell:
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self.cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data

    def row(self, label: str) -> list[str]:
        [found] = [row[1:] for row in self.rows if row[0] == label]
        return found

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def report(out: Path, *runs: Path) -> _Page:
    return _Page(write_report(runs, out).read_text(encoding="utf-8"))


# --- numbers ------------------------------------------------------------------------------------


def test_row_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", accuracies=[0.1, 0.48, 0.66, 0.66])
    page = report(tmp_path / "out", run)
    # 0.48, 0.66, 0.66 after training: last and mean of all, then halves and thirds of them, then
    # the loss. 2 MiB down and 1 MiB up per round for two clients; four rows of a minute.
    assert page.row("bmsfed, seed 0") == [
        *["3", "1–3 (3)", "66.0", "60.0", "33.0", "30.0", "22.0", "20.0"],
        *["1", "1"],
        *["train", "1.00", "0.50", "4.00"],
    ]
    assert "best" not in page.text


def test_the_head_of_one_modality_is_in_the_table_and_a_figure(tmp_path: Path) -> None:
    change = {n: {"head_accuracy_by_modality": {"colored": 0.5, "gray": 0.1 * n}} for n in range(4)}
    page = report(tmp_path / "out", make_run(tmp_path / "a", change=change))
    [head] = [row for row in page.rows if row[0] == "run"]
    groups = head[3 : head.index("proto\u00adtypes")]
    assert groups == [
        *("all modalities", "colored alone", "gray alone"),
        *("colored through the head", "gray through the head", "loss"),
    ]
    row = page.row("bmsfed, seed 0")
    assert row[8:12] == ["50.0", "50.0", "30.0", "20.0"]
    assert "Accuracy through the head by round" in page.text
    assert is_drawn((tmp_path / "out" / "accuracy-through-the-head.png").read_bytes())


def test_traffic_is_what_the_history_counts(tmp_path: Path) -> None:
    text = report(tmp_path / "out", make_run(tmp_path / "a")).text
    assert text.count("without those of enrolment") == 2
    assert "enrolment and measurements included" not in text


def test_closing_mean_is_over_evaluations_of_the_last_ten_rounds(tmp_path: Path) -> None:
    evaluated: list[float | None] = [0.9, 0.9, *(0.01 * n for n in range(1, 11))]
    spread = [v for value in evaluated for v in (value, None)]
    page = report(tmp_path / "out", make_run(tmp_path / "a", accuracies=[0.1, *spread]))
    # Round 23 is the last with a value; the loss has one in every round.
    assert page.row("bmsfed, seed 0")[1:4] == ["15–23 (5), 15–24 (10)", "10.0", "8.0"]


def test_mean_over_seeds(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(seed), seed=seed, accuracies=[0.1, last])
        for seed, last in enumerate([0.5, 0.6, 0.7])
    ]
    page = report(tmp_path / "out", *runs)
    # Standard deviation 10, t(2, 97.5 %) = 4.3027: 4.3027 * 10 / sqrt(3) = 24.84
    row = page.row("bmsfed, mean of 3 seeds")
    assert row[:4] == ["1", "1 (1)", "60.0 ± 24.8 (n = 3)", "60.0 ± 24.8 (n = 3)"]
    assert row[4:6] == ["30.0 ± 12.4 (n = 3)", "30.0 ± 12.4 (n = 3)"]
    assert row[8] == "1 ± 0 (n = 3)"
    assert row[10] == "train"
    assert "two seeds says next to nothing" not in page.text
    two = report(tmp_path / "two", *runs[:2])
    assert two.row("bmsfed, mean of 2 seeds")[2] == "55.0 ± 63.5 (n = 2)"
    assert "two seeds says next to nothing" in two.text


def test_seeds_whose_clients_held_other_numbers_of_samples_are_told(tmp_path: Path) -> None:
    """As with machines' own data, which the server's fingerprint says nothing of."""
    runs = [make_run(tmp_path / str(seed), seed=seed, accuracies=[0.1, 0.5]) for seed in (0, 1)]
    assert "training samples in all" not in report(tmp_path / "even", *runs).text
    held = json.loads((runs[1] / "clients.json").read_text())
    held["client-00"]["num_samples"] = 4
    (runs[1] / "clients.json").write_text(json.dumps(held))
    text = report(tmp_path / "out", *runs).text
    assert "The clients of bmsfed held 22 to 27 training samples in all, by seed." in text


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [([0.0, 2.0], 1.0, 12.706204736), ([1.0, 2.0, 3.0, 4.0], 2.5, 2.0542602567)],
)
def test_interval_is_students(values: list[float], mean: float, half: float) -> None:
    assert mean_and_interval(values) == pytest.approx((mean, half))


def test_a_run_says_what_data_it_saw_and_what_was_left_out(tmp_path: Path) -> None:
    left = {"shares its origin with a test sample": 60, "unknown label": 2}
    samples = {
        "train": {"listed": 180, "used": 118, "left_out": left},
        "test": {"listed": 32, "used": 32, "left_out": {}},
    }
    known = report(tmp_path / "out", make_run(tmp_path / "a", info={"samples": samples})).text
    assert "1a2b3c4d5e6f7081" in known
    assert (
        "train: 118 of 180 (60 shares its origin with a test sample, 2 unknown label); "
        "test: 32 of 32"
    ) in known


def test_data_sets_have_sections_and_figures_of_their_own(tmp_path: Path) -> None:
    old = {"data_dir": "/data"}
    runs = [
        make_run(tmp_path / "a", info={"data": "aaaaaa0123456789"}),
        make_run(tmp_path / "b", config={"dataset": "CG MNIST"}, modalities=["rgb", "depth"]),
        make_run(tmp_path / "old", info={"data": ""}, config=old, accuracies=[0.1, 0.2]),
    ]
    page = report(tmp_path / "out", *runs)
    title = "Federated runs on cg-digits (data aaaaaa), CG MNIST and cg-digits (data not recorded)"
    assert title in page.text
    names = {p.name for p in (tmp_path / "out").iterdir()}
    endings = ("cg-digits-data-aaaaaa", "cg-mnist", "cg-digits-data-not-recorded")
    assert {f"accuracy-{ending}.png" for ending in endings} < names
    assert [tag for tag, _ in page.tags].count("h2") == 3
    assert len(page.images()) == 3 * len(FIGURES)
    assert "unknown (folder /data, settings by default)" in page.text
    assert page.text.count("do not say what data they saw") == 1


# --- how the runs ended -------------------------------------------------------------------------


def ended(run: Path, **summary: Any) -> Path:
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_a_failed_run_says_why_and_stays_out_of_the_mean(tmp_path: Path) -> None:
    reason = "5 of 6 answers were left out: NaN in head.bias (5)"
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1, 2)]
    ended(runs[0], complete=False, rounds=3, failed=reason)
    page = report(tmp_path / "out", *runs)
    assert page.row("bmsfed, seed 0")[0] == "3, failed"
    assert page.row("bmsfed, mean of 2 seeds")
    assert f"Ended as failed: {reason}" in page.text
    assert "leave out 1 run" in page.text


def test_a_run_that_a_callback_ended_is_not_called_interrupted(tmp_path: Path) -> None:
    run = ended(make_run(tmp_path / "a", rounds=9), complete=True, rounds=3)
    page = report(tmp_path / "out", run)
    assert page.row("bmsfed, seed 0")[0] == "3 of 9"
    assert "Round 3 of 9: ended by a callback." in page.text
    assert "interrupted" not in page.text


def test_the_share_of_answers_left_out_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    rows = [
        {"kind": "client", "round": 3, "client": client, "phase": phase, "status": status}
        for client, phase, status in [
            ("client-00", "train", "no answer"),
            ("client-01", "train", "ok"),
            ("client-02", "train", "ok"),
            ("client-02", "probe", "no answer"),
        ]
    ]
    with (run / "history.jsonl").open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    assert "2 of 4 (50 %)" in report(tmp_path / "out", run).text


def test_a_diverged_run_shows_it(tmp_path: Path) -> None:
    diverged = {2: {"loss": float("inf")}, 3: {"loss": float("nan")}}
    run = make_run(tmp_path / "a", change=diverged)
    ended(run, complete=True, rounds=3, loss={"last": float("nan")})
    page = report(tmp_path / "out", run)
    assert page.row("bmsfed, seed 0")[8:10] == ["nan", "nan"]
    assert len(page.images()) == len(FIGURES)


def test_a_run_that_declared_a_best_can_still_be_read(tmp_path: Path) -> None:
    metrics = [{"name": "loss", "title": "loss", "best": "min"}]
    assert read_run(make_run(tmp_path / "a", info={"metrics": metrics})).metric("loss")


def test_unfinished_and_repeated_runs_stay_out_of_the_mean(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", seed=0, rounds=3),
        make_run(tmp_path / "again", seed=0, rounds=3, accuracies=[0.1, 0.9, 0.9, 0.9]),
        make_run(tmp_path / "b", seed=1, rounds=3),
        make_run(tmp_path / "c", seed=2, rounds=3, accuracies=[0.1, 0.9]),
    ]
    page = report(tmp_path / "out", *runs)
    assert page.row("bmsfed, mean of 2 seeds")[2] == "62.5 ± 0.0 (n = 2)"
    assert page.row("bmsfed, seed 0 (again)")[2] == "90.0"
    assert "leave out 2 runs" in page.text
    assert page.row("bmsfed, seed 2")[0] == "1 of 3"
    assert "Round 1 of 3: going on, or interrupted." in page.text


def test_a_run_that_only_evaluated_its_first_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", accuracies=[0.1], rounds=5)
    (run / "clients.json").unlink()  # written after round 1
    page = report(tmp_path / "out", run)
    assert set(page.row("bmsfed, seed 0")[1:-1]) == {"–"}
    assert "Round 0 of 5" in page.text


def test_selection_counts_what_clients_hold(tmp_path: Path) -> None:
    three = ["rgb", "depth", "thermal"]
    assigned = {
        "a": ["thermal", "rgb", "depth"],
        "b": ["depth"],
        "c": ["rgb"],
        "d": ["depth", "rgb"],
    }
    run = make_run(
        tmp_path / "a",
        modalities=three,
        clients=["a", "b", "c", "d"],
        change={2: {"assignments": assigned}},
    )
    held = json.loads((run / "clients.json").read_text())
    held["c"]["modalities"] = ["rgb"]  # all it holds, though it is one modality
    (run / "clients.json").write_text(json.dumps(held))
    rounds, counts = selection_counts(read_run(run))
    assert list(rounds) == [1, 2, 3]
    assert {kind: list(n) for kind, n in counts.items()} == {
        (): [1, 2, 1],
        ("rgb",): [0, 0, 0],
        ("depth",): [0, 1, 0],
        ("thermal",): [1, 0, 1],
        ("rgb", "depth"): [0, 1, 0],
    }


def test_many_rounds_are_binned_and_the_page_says_so(tmp_path: Path) -> None:
    assert [bin_width(n) for n in (1, 60, 61, 120, 121, 1000)] == [1, 1, 2, 2, 3, 17]
    page = report(tmp_path / "out", make_run(tmp_path / "a", accuracies=[0.1] + [0.5] * 61))
    assert "each bar stands for 2 rounds together" in page.text


# --- the files ----------------------------------------------------------------------------------


def is_drawn(png: bytes) -> bool:
    pixels = imread(io.BytesIO(png))
    return pixels.shape[0] > 300 and pixels.shape[1] > 1000 and len(np.unique(pixels)) > 20


@pytest.mark.parametrize("modalities", [MODALITIES, ["rgb", "depth", "thermal"]])
def test_figures_are_drawn_and_embedded(tmp_path: Path, modalities: list[str]) -> None:
    runs = [
        make_run(tmp_path / f"{method}{seed}", method=method, seed=seed, modalities=modalities)
        for method in ("fedavg", "bmsfed")
        for seed in (0, 1)
    ]
    page = report(tmp_path / "out", *runs)
    files = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.suffix == ".png"}
    assert set(files) == {f"{name}.png" for name in FIGURES}
    assert all(is_drawn(png) for png in files.values())
    sources = [str(image["src"]) for image in page.images()]
    assert [base64.b64decode(s.partition(",")[2]) for s in sources] == [
        files[f"{name}.png"] for name in FIGURES
    ]
    for image, name in zip(page.images(), FIGURES, strict=True):
        size = struct.unpack(">II", files[f"{name}.png"][16:24])
        assert (image["width"], image["height"]) == tuple(map(str, size))
        assert "bmsfed, seed 1" in str(image["alt"])


def test_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = write_report([make_run(tmp_path / "a")], tmp_path / "out").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    page = _Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in page.tags:
        assert "href" not in attributes
        assert str(attributes.get("src", "data:image/png")).startswith("data:image/png")
    assert [tag for tag, _ in page.tags if tag in {"h1", "h2", "main", "header"}] == [
        *("header", "h1", "main", "h2")
    ]


def test_header_says_what_was_run(tmp_path: Path) -> None:
    text = report(tmp_path / "out", make_run(tmp_path / "a", seed=7)).text
    code = ("0123abc", "89abcdef (bmsfed.bmsfed.1.0.0a1b2c3d)", "bmsfed run --seed 7")
    for fact in (*code, "x86_64, 4 cores", "cg-digits", "flwr 1", "iid"):
        assert fact in text


def test_the_commit_of_the_same_code_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of Flower's bundle has no git; a checkout with the same code has."""
    monkeypatch.setattr("bmsfed_app.report.facts.commit", lambda: "fedcba9")
    info = {"commit": None, "source": source_hash()}
    assert "fedcba9" in report(tmp_path / "out", make_run(tmp_path / "a", info=info)).text
    info = {"commit": None, "source": "of other code"}
    assert "fedcba9" not in report(tmp_path / "out2", make_run(tmp_path / "b", info=info)).text


def test_header_says_how_the_data_was_divided(tmp_path: Path) -> None:
    given = {"partition": "dirichlet", "alpha": 2.0, "sigma": 1.0, "whole_share": 0.5}
    given |= {"samples_per_client": 90, "subsets": [["gray"], ["colored"]], "clients": 3}
    text = report(tmp_path / "out", make_run(tmp_path / "a", config=given)).text
    assert "dirichlet (alpha 2), at most 90 samples per client, 50 % of the clients hold" in text
    assert "the others gray or colored" in text
    sites = {"partition": "file", "partition_file": "/data/<sites>.csv"}
    text = report(tmp_path / "sites", make_run(tmp_path / "b", config=sites)).text
    assert "file (/data/<sites>.csv)" in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    hostile = '<script>alert("$1$")</script>&\n$\\frac{'
    run = make_run(
        tmp_path / "a",
        method="_" + hostile,
        clients=[hostile, "b", "_c"],
        modalities=[hostile, "_gray"],
        info={"class_names": [hostile, "$"], "command": hostile, "versions": {hostile: hostile}},
        change={2: {"failures": {hostile: hostile}}},
    )
    text = write_report([run], tmp_path / "out").read_text(encoding="utf-8")
    assert "<script" not in text
    page = _Page(text)
    assert page.row(hostile)[:2] == ["2", hostile]
    assert len(page.images()) == len(FIGURES)


def test_failures_are_listed_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", change={2: {"failures": {"client-01": "no answer"}}})
    row = {"kind": "client", "round": 2, "client": "client-01", "status": "no answer"}
    late = {"kind": "client", "round": 4, "client": "client-02", "status": "out of memory"}
    with (run / "history.jsonl").open("a") as stream:
        stream.writelines(json.dumps(r) + "\n" for r in (row, late))
    page = report(tmp_path / "out", run)
    assert page.row("client-01") == ["2", "no answer", "bmsfed, seed 0"]
    assert page.row("client-02") == ["4", "out of memory", "bmsfed, seed 0"]


def test_clients_that_stand_out_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    assert "stand out" not in report(tmp_path / "without", run).text
    note = "its update changes 'head' by 1e+06 times the usual; scaled down to that"
    cosines = {"client-00": 0.5, "client-01": -0.25, "client-02": -0.9}
    rows: list[dict[str, Any]] = [
        {"kind": "client", "round": r, "client": c, "update_norm": 1.0, "update_cosine": cosine}
        for r in (1, 2, 3)
        for c, cosine in cosines.items()
        if (r, c) != (2, "client-02")  # two rounds say little of a client
    ]
    rows[3]["note"] = note  # client-00, round 2
    with (run / "history.jsonl").open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    page = report(tmp_path / "out", run)
    assert "Clients that stand out" in page.text
    assert page.row("client-00")[:2] == ["2", note]
    against = "its updates point against the global model's: mean cosine -0.25"
    assert page.row("client-01")[:2] == ["1, 2, 3", against]
    assert not [row for row in page.rows if row[0] == "client-02"]


def test_no_failures_no_table(tmp_path: Path) -> None:
    assert "Failures" not in report(tmp_path / "out", make_run(tmp_path / "a")).text


def test_what_was_not_recorded_is_said(tmp_path: Path) -> None:
    nothing = {n: {"ratio": {}, "bytes_down": 0, "bytes_up": 0} for n in range(4)}
    page = report(tmp_path / "out", make_run(tmp_path / "a", change=nothing))
    assert "None of these runs measured imbalance ratios." in page.text
    assert not (tmp_path / "out" / "ratio.png").exists()


@pytest.mark.parametrize("ratios", [{"gray": 0.0}, {"gray": 900.0}, {"gray": float("inf")}])
def test_extreme_ratios_are_drawn(tmp_path: Path, ratios: dict[str, float]) -> None:
    run = make_run(tmp_path / "a", change={2: {"ratio": ratios}})
    assert len(report(tmp_path / "out", run).images()) == len(FIGURES)


def test_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    write_report([make_run(tmp_path / "a")], tmp_path / "out")
    assert dict(matplotlib.rcParams) == before


# --- damaged and missing files --------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 20, -2])
def test_a_cut_off_last_line_is_left_out(tmp_path: Path, keep: int) -> None:
    run = make_run(tmp_path / "a")
    *lines, last = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines) + last[:keep])
    page = report(tmp_path / "out", run)
    assert page.row("bmsfed, seed 0")[:3] == ["2 of 3", "1–2 (2)", "75.0"]
    assert "The last line of history.jsonl was cut off and is left out." in page.text
    assert "Round 2 of 3: going on, or interrupted." in page.text


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    lines = (run / "history.jsonl").read_text().splitlines()
    lines[1] = lines[1][:30]
    (run / "history.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunFolderError, match=r"a/history\.jsonl', line 2 is not valid JSON"):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 51.0}, r"line 3: accuracy: 51\.0 is not a share from 0 to 1"),
        ({"accuracy": "0.5"}, "line 3: accuracy: '0.5' is not a number"),
        ({"accuracy_by_modality": [0.5]}, r"line 3: accuracy_by_modality: \[0\.5\] is no object"),
        ({"round": None}, "line 3: round: .* integer, not None"),
        ({"assignments": ["client-00"]}, "line 3: assignments: .* dictionary, not .'client-00'"),
        (
            {"assignments": {"client-00": "gray"}},
            "line 3: assignments.client-00: .* list, not 'gray'",
        ),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunFolderError, match=message):
        read_run(make_run(tmp_path / "a", change={2: change}))


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "clients.json", "history.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "a")
    (run / name).unlink()
    with pytest.raises(RunFolderError, match=f"is not a run folder: it has no {re.escape(name)};"):
        write_report([run], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "a: [", "config.yaml' is not valid YAML"),
        ("config.yaml", "dataset: x", "has no whole number of 'rounds'"),
        ("run.json", "{", "run.json': Invalid JSON"),
        ("run.json", "[]", "run.json': Input should be an object"),
        ("run.json", '{"method": "bmsfed"}', "run.json': dataset: Field required"),
        (
            "clients.json",
            '{"client-00": 3}',
            "client-00: Input should be an object, not 3",
        ),
        ("history.jsonl", "", "history.jsonl' holds no round"),
        ("history.jsonl", "[1]\n{}\n", "line 1 is not a JSON object"),
        ("history.jsonl", '{"kind": "x"}\n', "line 1: kind: 'x' is no kind of row"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = make_run(tmp_path / "a")
    (run / name).write_text(text)
    with pytest.raises(RunFolderError, match=message):
        write_report([run], tmp_path / "out")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run folder '.*nowhere'"):
        write_report([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(ReportError, match="no run folder was given"):
        write_report([], tmp_path / "out")


# --- the output folder --------------------------------------------------------------------------


def test_a_report_replaces_its_own_files_only(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "a"), tmp_path / "out"
    other = make_run(tmp_path / "b", config={"dataset": "cg-mnist"})
    write_report([run, other], out)
    (out / "notes.txt").write_text("mine")
    write_report([run], out)
    names = {p.name for p in out.iterdir()}
    assert names == {"report.html", "notes.txt", *(f"{name}.png" for name in FIGURES)}


@pytest.mark.parametrize("name", ["report.html", "traffic.png"])
def test_foreign_files_are_not_overwritten(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(ReportError, match=f"{re.escape(name)}' was not written by a report"):
        write_report([make_run(tmp_path / "a")], out)
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [(name, "mine")]


def test_out_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ReportError, match="out' is a file: give a folder"):
        write_report([make_run(tmp_path / "a")], tmp_path / "out")


def test_out_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write the report to"):
        write_report([make_run(tmp_path / "a")], tmp_path / "file" / "out")


def test_the_end_of_a_run_is_shown_by_view_and_by_class(tmp_path: Path) -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    right = Tally.of(logits.log_softmax(dim=1), labels).view()
    wrong = Tally.of((-logits).log_softmax(dim=1), labels).view()
    views = ModelViews(round=3, splits={"test": SplitViews(all=right, head={"gray": wrong})})
    run = make_run(tmp_path / "run")
    found = RunEvaluation(class_names=["zero", "one"], last=views)
    (run / "evaluation.json").write_text(found.model_dump_json())
    other = make_run(tmp_path / "other", seed=1)
    write_report([run, other], tmp_path / "out")
    page = _Page((tmp_path / "out/report.html").read_text())
    assert "At the end" in page.text
    assert "last model, round 3" in page.text
    nll = -float(logits.log_softmax(dim=1)[range(4), labels].mean())
    whole = page.row("all modalities")
    assert whole[:3] == ["test", "4", "75.0"]
    assert whole[5] == f"{nll:.3f}"
    assert page.row("gray through the head")[:3] == ["test", "4", "25.0"]
    recalls = [row for row in page.rows if row and row[0] == "zero"]
    assert recalls[-2][1:3] == ["3", "66.7"]
    assert recalls[-1] == ["zero", "2", "1"]  # the confusion matrix
    assert page.text.count("last model, round") == 1  # the other run has no evaluation
