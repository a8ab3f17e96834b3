"""Where the time and memory of a CG-MNIST BMSFed round go.

``python -m benchmarks.profile_round --data-dir MNIST [--out results.json]``: all 60,000 images over
30 clients, 6 a round, one local epoch, simulated on all cores; then one client's task alone,
its calls timed. About three minutes. Goals: >= 80 % of a round in forward and backward passes,
under 6 GiB in all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.common import write
from benchmarks.memory import tree_memory
from bmsfed_app.config import load_config
from bmsfed_app.datasets.base import Split
from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.optimizers import OPTIMIZERS
from bmsfed_app.record.run import read_run
from client_app import training
from client_app.data import local_data
from server_app.experiment import initial_model
from strategies import Orders, SignatureOrders, Task


def simulate(data_dir: str, rounds: int, folder: Path) -> float:
    """Run the experiment; return the peak memory of its process tree in GiB."""
    command = [sys.executable, "-m", "bmsfed_app.cli.main", "run", "cg-mnist", "--rounds"]
    command += [
        str(rounds),
        "--data-dir",
        data_dir,
        "--set",
        "local_epochs=1",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit("the run failed")
    return peak


def passes(data_dir: str) -> dict[str, float]:
    """Seconds of one client's task by what they are spent on, one thread."""
    torch.set_num_threads(1)
    config = load_config("cg-mnist", {"data_dir": data_dir, "local_epochs": 1})
    settings = config.client_settings()
    data = local_data({"partition-id": 0, "num-partitions": 30}, settings)
    model = initial_model(config)
    orders = Orders("measure", ("colored", "gray"), signature=SignatureOrders())
    probe = training.run_task(Task(orders, model), data, settings)
    # As from the second round on.
    task = Task(replace(orders, kind="train", prototypes=probe.prototypes), model)
    training.run_task(task, data, settings)
    spent: dict[str, float] = {}
    with ExitStack() as stack:
        for owner, name, what in TIMED:
            stack.enter_context(patch.object(owner, name, timed(owner, name, what, spent)))
        started = time.perf_counter()
        training.run_task(task, data, settings)
        whole = time.perf_counter() - started
    return {"whole": whole, **spent, "rest": whole - sum(spent.values())}


#: Calls that do not contain each other; the rest is losses, copies and Python.
TIMED = [
    (MultiModalNetwork, "forward", "forward"),
    (torch.Tensor, "backward", "backward"),
    (torch.autograd, "grad", "backward"),
    (OPTIMIZERS.find("sgd"), "step", "optimizer"),
    (Split, "batch", "rendering"),
]


def timed(owner: Any, name: str, what: str, spent: dict[str, float]) -> Callable[..., Any]:
    """A function that adds its seconds to ``spent[what]``; exact on one thread of a CPU."""
    function = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[what] = spent.get(what, 0.0) + time.perf_counter() - started

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="", help="folder with the MNIST files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        peak = simulate(given.data_dir, given.rounds, Path(folder) / "run")
        run = read_run(Path(folder) / "run")
    task = passes(given.data_dir)
    share = (task["forward"] + task["backward"]) / task["whole"]
    figures: list[dict[str, Any]] = []
    for number in range(2, given.rounds + 1):  # workers load the data in the first
        row = run.rounds[number]
        work = sum(c.metrics["seconds"] for c in run.answers if c.round == number)
        evaluation = row.metrics["seconds_evaluation"]
        total = row.seconds + evaluation
        busy = work / cores + evaluation
        figures.append({"total": total, "clients": work / cores, "busy": busy / total})
        figures[-1]["passes"] = (share * work / cores + evaluation) / total
    middle = {k: median(f[k] for f in figures) for k in figures[0]}
    print("one client's task, seconds:", {k: round(v, 2) for k, v in task.items()})
    print(
        f"a round: {middle['total']:.2f} s; clients at work on {cores} cores and evaluation: ",
        end="",
    )
    print(
        f"{100 * middle['busy']:.0f} % of it; forward and backward: {100 * middle['passes']:.0f} %"
    )
    print(f"peak memory of the whole simulation: {peak:.2f} GiB")
    write(given.out, {"task": task, "rounds": figures, "median": middle, "peak_gib": peak})


if __name__ == "__main__":
    main()
