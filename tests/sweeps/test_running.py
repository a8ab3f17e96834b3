"""`bmsfed sweep` in processes of its own: killed, gone on with, twice at once, interrupted."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bmsfed_app.cli.sweep.runs import idle_gpu, precision_notes
from bmsfed_app.sweeps import load_sweep
from tests.processes import PATIENCE, Processes, wait_until
from tests.run_folders import rows

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("sweeps")]

ROUNDS = 8
FILE: dict[str, Any] = {
    "set": {"clients": 4, "per_round": 2, "local_epochs": 1, "rounds": ROUNDS},
    "methods": ["fedavg", "bmsfed"],
    "datasets": ["cg-digits", {"name": "mvsa", "needs": "folder mvsa_single"}],
    "seeds": [0],
}


@pytest.fixture
def processes(tmp_path: Path) -> Any:
    found = Processes(tmp_path)
    yield found
    found.stop_all(signal.SIGKILL)
    for pid in found.alive():
        os.kill(pid, signal.SIGKILL)


def written(folder: Path, name: str, **changes: Any) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(FILE | changes))
    return str(file)


def last_round(run: Path) -> int:
    file = run / "history.jsonl"
    if not file.exists():
        return -1
    return max((json.loads(x)["round"] for x in file.read_text().splitlines()[:-1]), default=-1)


def test_a_gpu_that_no_run_uses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not idle_gpu(0.0, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "--gpus-per-run 0.25" in idle_gpu(0.0, "")
    assert not idle_gpu(0.5, "")
    assert not idle_gpu(0.0, "auto")


def test_a_precision_that_is_slow_here_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    file = written(tmp_path, "half", datasets=["cg-digits"])
    half, auto = (load_sweep(file, overrides={"precision": p}).runs for p in ("bf16", "auto"))
    [said] = precision_notes(half, 0.0)
    assert said.endswith("give auto, which takes float32 here")
    assert precision_notes(auto, 0.0) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_sweep_goes_on_after_a_kill_and_what_fails_stops_nobody(
    processes: Processes, tmp_path: Path
) -> None:
    file = written(tmp_path, "one")
    good = [r for r in load_sweep(file).runs if r.dataset == "cg-digits"]
    root = tmp_path / "runs"
    folders = [r.folder(root) for r in good]
    sweep = ("sweep", file, "--runs", str(root))

    process = processes.start("bmsfed", *sweep, log="first.log")
    wait_until(lambda: any(last_round(f) >= 2 for f in folders), "round 2", process)
    for pid in processes.alive():  # the whole tree at once
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while processes.alive():
        time.sleep(0.1)
    assert not all((f / "model.safetensors").exists() for f in folders)

    # Another sweep wants one of these runs, and both go on at once.
    other = written(tmp_path, "two", methods=["fedavg"], datasets=["cg-digits"], seeds=[0, 1])
    again = processes.start("bmsfed", *sweep, log="again.log")
    beside = processes.start("bmsfed", "sweep", other, "--runs", str(root), log="beside.log")
    assert again.wait(PATIENCE) == 1
    beside.wait(PATIENCE)
    text = processes.text("again.log")
    # Once for all that lack it, when it is met and at the end.
    assert text.count("needs folder mvsa_single") == 2
    assert text.count("fedavg, mvsa, seed 0 and 1 more: failed: ") == 2
    assert "Traceback" not in text + processes.text("beside.log")

    code, text = processes.run("bmsfed", "sweep", other, "--runs", str(root))
    assert code == 0, text
    assert "2 of 2 runs complete" in text
    for folder in {*folders, *(r.folder(root) for r in load_sweep(other).runs)}:
        found = [r["round"] for r in rows(folder) if r.get("type", "round") == "round"]
        assert sorted(set(found)) == list(range(ROUNDS + 1))
        assert json.loads((folder / "summary.json").read_text())["complete"]
    assert sorted(p.name for p in root.iterdir()) == sorted(
        {f.name for f in folders} | {r.folder(root).name for r in load_sweep(other).runs}
    )


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_stopped_sweep_keeps_complete_rounds_and_leaves_no_process(
    processes: Processes, tmp_path: Path
) -> None:
    changes = {"datasets": ["cg-digits"], "methods": ["fedavg"], "set": FILE["set"]}
    changes["set"] = FILE["set"] | {"rounds": 200}
    file, root = written(tmp_path, "long", **changes), tmp_path / "runs"
    [run] = load_sweep(file).runs
    folder = run.folder(root)
    # As a shell begins what runs in the background: with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = processes.start("bmsfed", "sweep", file, "--runs", str(root), log="long.log")
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: last_round(folder) >= 2, "round 2", process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    while processes.alive():
        time.sleep(0.1)
    summary = json.loads((folder / "summary.json").read_text())
    assert not summary["complete"]
    assert 2 <= summary["rounds"] < 200
    assert "the same command goes on" in processes.text("long.log")
    assert "seed 0: stopped: go on with: " in " ".join(processes.text("long.log").split())
    code, text = processes.run("bmsfed", "sweep", file, "--runs", str(root), "--dry-run")
    assert code == 0
    assert "waiting" in text
    assert str(folder) in text
