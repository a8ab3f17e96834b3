"""What many small clients cost besides their training: to enrol, and in a round.

``python -m benchmarks.many_clients [--clients 10000] [--out results.json]``: made-up digits, six
samples a client, all in one process on one thread; a tenth of the clients a round. First 100
clients, then all, each in a process of its own, so that the peak memory is theirs. About a minute
on one core. Goals: 10,000 clients enrol in under 20 s and in at most 1 GiB more than 100 take; a
round costs under 2 ms a client above its training.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import write
from bmsfed_app.config import check_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.plugins import import_plugins
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback, Decisions, RoundReport

FEW, SAMPLES = 100, 6
ROUNDS = 3  # the first loads and measures


class Watch(Callback):
    """Notes when clients have enrolled, and what rounds take."""

    def __init__(self) -> None:
        self.asked = 0.0
        self.enrolment = self.enrolled_mib = 0.0
        self.rounds: list[dict[str, float]] = []

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Note when the clients are asked, and when they have answered."""
        if phase == "enrol":
            self.asked = time.perf_counter()
        elif not self.enrolment:
            self.enrolment = time.perf_counter() - self.asked
            self.enrolled_mib = peak_mib()

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Sum up what clients spent."""
        of = [c for c in report.clients if c.phase == "train"]
        assert len(of) == len(report.trained)
        self.rounds.append(
            {
                "clients": len(of),
                "seconds": report.seconds,
                "tasks": sum(c.metrics["seconds"] for c in of),
                "training": sum(c.metrics["seconds_training"] for c in of),
            }
        )


def peak_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def measure(method: str, clients: int) -> dict[str, Any]:
    """Run a federation in this process."""
    import_plugins(["benchmarks.made_up"])
    values: dict[str, Any] = {"method": method, "clients": clients, "rounds": ROUNDS}
    values |= {"dataset": "made-up-digits", "plugins": ["benchmarks.made_up"]}
    values["dataset_settings"] = {"train": SAMPLES * clients, "test": 100}
    values |= {"per_round": max(clients // 10, 10), "device": "cpu", "eval_every": ROUNDS}
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", check_config(values))
        started = time.perf_counter()
        with InlineGrid(app, clients) as grid:
            run_experiment(grid, run, callbacks=[watch], overlap=False)
        whole = time.perf_counter() - started
    return {
        "clients": clients,
        "enrolment": watch.enrolment,
        "enrolled_mib": watch.enrolled_mib,
        "rounds": watch.rounds,
        "whole": whole,
        "peak_mib": peak_mib(),
    }


def in_own_process(method: str, clients: int) -> dict[str, Any]:
    """Measure, and return what is found."""
    command = [sys.executable, "-m", "benchmarks.many_clients", "--one", method, str(clients)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(row: dict[str, Any]) -> None:
    """Print a row of the table."""
    last = row["rounds"][-1]
    each = 1000 / last["clients"]
    print(
        f"{row['clients']:>8} {row['enrolment']:>8.2f} {row['enrolled_mib']:>8.0f} "
        f"{last['clients']:>8.0f} "
        f"{each * last['seconds']:>9.2f} {each * last['training']:>9.2f} "
        f"{each * (last['seconds'] - last['training']):>9.2f} "
        f"{each * (last['seconds'] - last['tasks']):>9.2f} "
        f"{row['whole']:>8.1f} {row['peak_mib']:>9.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--method", default="fedavg")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "CLIENTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    print(f"{args.method}; milliseconds are of one client in round {ROUNDS}")
    print(
        f"{'clients':>8} {'enrol s':>8} {'then MiB':>8} {'a round':>8} {'ms':>9} "
        f"{'training':>9} {'above':>9} {'no task':>9} {'whole s':>8} {'peak MiB':>9}"
    )
    rows = [in_own_process(args.method, n) for n in (FEW, args.clients)]
    for row in rows:
        show(row)
    write(args.out, {"method": args.method, "rows": rows})


if __name__ == "__main__":
    main()
