"""What a run of a sweep costs beside its rounds, and how many runs an hour brings.

``python -m benchmarks.sweep [--runs 12]`` runs short experiments on the embedded digits, as many
beside each other as there are cores, and takes from all the time of the processes what the runs
spent in rounds. The first run of each process is left out: it loads what the others find loaded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import write
from bmsfed_app.cli.sweep.pool import Pool
from bmsfed_app.cli.sweep.work import Outcome
from bmsfed_app.engine.cluster import Cluster
from bmsfed_app.sweeps import Sweep, SweepRun, load_sweep
from bmsfed_app.sweeps.state import seconds_of

#: Seconds of training that a run of the goal has: "60 runs an hour on 2 cores".
_TRAINING = 90.0


def made_sweep(folder: Path, runs: int) -> Sweep:
    """Return a sweep of so many runs of three rounds."""
    file = folder / "short.yaml"
    values = {
        "set": {"rounds": 3, "clients": 6, "per_round": 3, "local_epochs": 1},
        "methods": ["fedavg"],
        "datasets": ["cg-digits"],
        "seeds": list(range(runs)),
    }
    file.write_text(yaml.safe_dump(values))
    return load_sweep(str(file))


def measure(runs: int) -> dict[str, Any]:
    """Run them, and return seconds by what they were spent on."""
    with tempfile.TemporaryDirectory() as made:
        sweep, cluster = made_sweep(Path(made), runs), Cluster()
        try:
            return _measured(sweep, Pool(cluster, Path(made), 1, 0, "benchmarks.sweep"), Path(made))
        finally:
            cluster.leave()


def _measured(sweep: Sweep, pool: Pool, root: Path) -> dict[str, Any]:
    ends: list[float] = []
    rounds: list[float] = []

    def on_end(run: SweepRun, outcome: Outcome) -> None:
        if outcome.state != "complete":
            raise RuntimeError(f"{run.label}: {outcome.why}")
        ends.append(time.perf_counter())
        rounds.append(seconds_of(run.folder(root)))

    start, at_once = time.perf_counter(), pool.at_once
    pool.work(sweep.runs, on_end, lambda: None)
    later = len(ends) - at_once  # runs of processes that had done one before
    wall = ends[-1] - ends[at_once - 1]
    beside = max(wall * at_once - sum(rounds[at_once:]), 0.0) / later
    return {
        "runs": len(ends),
        "at_once": at_once,
        "first_seconds": ends[0] - start,
        "seconds_in_rounds": sum(rounds[at_once:]) / later,
        "seconds_beside": beside,
        "desk_runs_an_hour": at_once * 3600 / (_TRAINING + beside),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, help="write the figures as JSON")
    options.add_argument("--runs", type=int, default=6 * (os.cpu_count() or 1))
    given = options.parse_args()
    found = measure(given.runs)
    print(
        f"{found['runs']} runs, {found['at_once']} at once: the first was complete after "
        f"{found['first_seconds']:.1f} s, later ones cost {found['seconds_beside']:.2f} s beside "
        f"{found['seconds_in_rounds']:.2f} s in rounds; with {_TRAINING:.0f} s of training that is "
        f"{found['desk_runs_an_hour']:.0f} runs an hour"
    )
    write(given.out, found)


if __name__ == "__main__":
    main()
