"""Simulated federations in real processes: run, kill, resume, interrupt."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.conftest import PATIENCE, SMALL, Processes, rows, wait_until

pytestmark = pytest.mark.e2e


def test_a_killed_run_resumes_to_the_same_last_bit(
    processes: Processes, whole: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    process = processes.start("bmsfed", "run", *SMALL, "--rounds", "4", "--out", str(broken))
    wait_until(lambda: reached(broken, 2), "round 2", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (broken / "model.safetensors").exists()

    code, text = processes.run("bmsfed", "run", "--resume", str(broken))
    assert code == 0, text
    assert rows(broken) == rows(whole)
    assert rows(broken, "selection.jsonl") == rows(whole, "selection.jsonl")
    ours, theirs = (load_file(run / "model.safetensors") for run in (broken, whole))
    assert {n: v.tobytes() for n, v in ours.items()} == {n: v.tobytes() for n, v in theirs.items()}
    check_folder(whole)


def reached(run: Path, number: int) -> bool:
    return any(r["kind"] == "round" and r["round"] == number for r in rows(run))


def check_folder(run: Path) -> None:
    """What a run folder holds, word for word of the README."""
    for name in ("config.yaml", "run.json", "checkpoint.safetensors", "selection.jsonl"):
        assert (run / name).is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["complete"] is True
    clients = json.loads((run / "clients.json").read_text())
    assert len(clients) == 4
    assert all(sum(c["class_counts"]) == c["num_samples"] for c in clients.values())
    history = rows(run)
    by_round = [r for r in history if r["kind"] == "round"]
    assert [r["round"] for r in by_round] == [0, 1, 2, 3, 4]
    assert set(by_round[-1]["accuracy_by_modality"]) == {"colored", "gray"}
    assert all(len(r["assignments"]) == 3 for r in by_round[1:])
    trained = [r for r in history if r["kind"] == "client" and r["phase"] == "train"]
    assert all(np.isfinite(r["losses"]["loss"]) and r["bytes_up"] > 0 for r in trained)
    picks = rows(run, "selection.jsonl")
    assert {p["client"] for p in picks if p["round"] == 3} == set(by_round[3]["assignments"])


def test_ctrl_c_keeps_what_was_reached(processes: Processes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = processes.start("bmsfed", "run", *SMALL, "--rounds", "500", "--out", str(run))
    wait_until(lambda: reached(run, 1), "round 1", process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    text = processes.text("bmsfed.log")
    assert f"go on with: bmsfed run --resume {run}" in text
    assert "Traceback" not in text
    summary = json.loads((run / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["rounds"] >= 1
    assert (run / "model.safetensors").exists()


def test_a_method_with_a_probe_of_its_own(processes: Processes, tmp_path: Path) -> None:
    """Every method runs in `tests/test_methods_on_digits.py`; this one through Ray as well."""
    run = tmp_path / "run"
    arguments = [*SMALL, "--rounds", "2", "--method", "pow-d", "--out", str(run)]
    arguments += ["--partition", "dirichlet", "--alpha", "1"]
    code, text = processes.run("bmsfed", "run", *arguments)
    assert code == 0, text
    # The table: a line a round, with both modalities and traffic.
    assert re.search(r"^ +2 +\d+\.\d +\d+\.\d +\d+\.\d .* \d+\.\dM +\d+\.\dM +\d+\.\d$", text, re.M)
    code, text = processes.run("bmsfed", "report", str(run))
    assert code == 0, text
    assert (run / "report" / "report.html").is_file()


def test_three_modalities_of_real_subjects_that_lack_some(
    processes: Processes, tmp_path: Path
) -> None:
    data = Path(__file__).resolve().parents[3] / "shared/data/utd_mhad"
    if not data.is_dir():
        pytest.skip(f"needs the files of {data}")
    run = tmp_path / "run"
    small = ["--rounds", "2", "--set", "data_fraction=0.2", "--set", "side=28"]
    lack = ["--set", "whole_share=0.5", "--set", "subsets=[[skeleton],[inertial,depth]]"]
    code, text = processes.run(
        "bmsfed", "run", "utd-mhad", "--data-dir", str(data), *small, *lack, "--out", str(run)
    )
    assert code == 0, text
    clients = json.loads((run / "clients.json").read_text())
    held = {name: c["modalities"] for name, c in clients.items()}
    assert sorted(map(len, held.values())) == [1, 2, 3, 3]
    assert all(name.startswith("subject-") for name in held)
    trained = [r for r in rows(run) if r["kind"] == "client" and r["phase"] == "train"]
    assert len(trained) == 4
    assert all(set(r["assigned"]) <= set(held[r["client"]]) for r in trained)
