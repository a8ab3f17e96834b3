"""`bmsfed run` in processes of its own: killed, resumed on Ray, interrupted."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.conftest import PATIENCE, SMALL, Processes, bmsfed, wait_until
from tests.run_folders import rows

pytestmark = pytest.mark.e2e

ROUNDS = 20


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_that_is_killed_and_one_that_is_interrupted_resume_to_the_same_last_bit(
    processes: Processes, tmp_path: Path
) -> None:
    """Begun in one process, killed, resumed on Ray, interrupted, finished here."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    rounds = [*SMALL, "--rounds", str(ROUNDS), "--engine", "inline"]
    process = processes.start("bmsfed", "run", *rounds, "--out", str(run))
    wait_until(lambda: reached(run, 2), "round 2", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()

    resume = ("run", "--resume", str(run), "--engine")
    before = rows(run)[-1]["round"]
    process = processes.start("bmsfed", *resume, "ray", log="ray.log")
    wait_until(lambda: reached(run, before + 2), "two rounds more", process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    text = processes.text("ray.log")
    assert "engine: ray (as set)" in text
    assert f"go on with: bmsfed run --resume {run}" in text
    assert "Traceback" not in text
    while processes.alive():  # Ray's own processes see that it is over, a moment later
        time.sleep(0.1)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["complete"] is False
    assert before + 2 <= summary["rounds"] < ROUNDS
    assert (run / "model.safetensors").exists()

    bmsfed(*resume, "inline")
    assert f"run folder: {whole}" in bmsfed("run", *rounds, "--out", str(whole))
    for file in ("history.jsonl", "selection.jsonl"):
        assert rows(run, file) == rows(whole, file)
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, whole))
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
    assert [r["round"] for r in by_round] == list(range(ROUNDS + 1))
    assert set(by_round[-1]["accuracy_by_modality"]) == {"colored", "gray"}
    assert all(len(r["assignments"]) == 3 for r in by_round[1:])
    trained = [r for r in history if r["kind"] == "client" and r["phase"] == "train"]
    assert all(np.isfinite(r["losses"]["loss"]) and r["bytes_up"] > 0 for r in trained)
    picks = rows(run, "selection.jsonl")
    assert {p["client"] for p in picks if p["round"] == 3} == set(by_round[3]["assignments"])
