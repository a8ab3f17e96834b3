"""What rules of aggregation cost, and what one or two bad clients of ten do under each.

``python -m benchmarks.robust`` measures seconds per aggregation of made-up updates.
``python -m benchmarks.robust --attacks`` trains cg-digits, 10 clients of whom the first one or two
are bad, and prints the accuracy at the end beside the same rule's without bad clients and the
plain mean's; all selected, and half a round. Some 40 minutes on one idle core; ``--only`` and
``--methods`` take less. ``--out`` writes the figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks import ATTACKS, BadClients, attacked_app
from benchmarks.common import write
from bmsfed_app.aggregations import build_aggregation
from bmsfed_app.config import load_config
from bmsfed_app.engine import InlineGrid
from bmsfed_app.record.run import read_run
from client_app.app import app
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Arrays, FedAvg, RoundReport, Update
from strategies.callbacks import ClientReport
from strategies.federation.outliers import Inspection

CLIENTS, ROUNDS = 10, 12
RULES: dict[str, dict[str, Any]] = {
    "mean": {"name": "mean"},
    "norm-clip": {"name": "norm-clip"},
    "median": {"name": "median"},
    "trimmed-mean": {"name": "trimmed-mean", "trim": 0.2},
    "krum": {"name": "krum", "bad": 2},
}
#: Numbers of a model, and clients that have trained it.
SIZES = {"5 x 88 MB": (22_000_000, 5), "50 x 0.8 MB": (200_000, 50)}


def costs(repeats: int = 3) -> dict[str, dict[str, float]]:
    """Return seconds per aggregation by size and rule, and of the inspection of norms."""
    found: dict[str, dict[str, float]] = {}
    for size, (numbers, clients) in SIZES.items():
        rng = np.random.default_rng(0)
        model = {f"encoders.a.{i}": rng.normal(size=numbers // 20) for i in range(20)}
        sent: Arrays = {n: v.astype(np.float32) for n, v in model.items()}
        updates = [
            Update(
                f"k{k:02}",
                ("a",),
                10,
                {n: v + rng.normal(size=v.shape).astype(np.float32) for n, v in sent.items()},
            )
            for k in range(clients)
        ]
        found[size] = {
            name: _fastest(repeats, sent, updates, choice) for name, choice in RULES.items()
        }
        found[size]["norms and cosines"] = _fastest(repeats, sent, updates, None)
    return found


def _fastest(
    repeats: int, sent: Arrays, updates: list[Update], choice: dict[str, Any] | None
) -> float:
    """Seconds of a rule, or of the inspection."""
    seconds = []
    for _ in range(repeats):
        strategy = FedAvg(aggregation=build_aggregation(choice) if choice else None)
        strategy.start_from(dict(sent))
        report = RoundReport(
            1, clients=[ClientReport(u.client_id, "train", ("a",)) for u in updates]
        )
        started = time.perf_counter()
        if choice:
            strategy.aggregate(updates)
        else:
            inspection = Inspection(strategy, {u.client_id: sent for u in updates}, updates)
            inspection.guarded(report, warn=False)
            strategy.state.arrays = updates[0].arrays  # some other model
            inspection.complete(report)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def accuracy(method: str, rule: str, attack: str, bad: int, per_round: int, seed: int) -> float:
    """Train a federation and return its mean accuracy over the last three rounds, in percent."""
    values: dict[str, Any] = {"method": method, "clients": CLIENTS, "per_round": per_round}
    values |= {"rounds": ROUNDS, "seed": seed, "aggregation": RULES[rule], "eval_every": 2}
    values |= {"device": "cpu", "cpus_per_client": 1, "max_failures": 1.0}
    values |= {"color_noise": 0.5, "plugins": ["benchmarks.attacks"], "lr": 0.05, "batch_size": 16}
    values["encoders"] = dict.fromkeys(("colored", "gray"), "pooled-linear")
    config = load_config("cg-digits", values)
    client = attacked_app(BadClients(ATTACKS[attack], bad)) if bad else app
    with tempfile.TemporaryDirectory() as name:
        run = RunFolder.create(Path(name) / "run", config)
        with InlineGrid(client, CLIENTS) as grid:
            run_experiment(grid, run, overlap=False)
        found = [value for _, value in read_run(run.path).values("accuracy")]
    return 100 * statistics.mean(found[-3:])


def attacks(given: argparse.Namespace) -> dict[str, Any]:
    """Run the federations that are asked for, and print a line of Markdown each."""
    print("| method | a round | attack | bad | " + " | ".join(given.rules) + " |")
    print("|---|---|---|---|" + "---|" * len(given.rules), flush=True)
    found: dict[str, Any] = {}
    for method in given.methods:
        for per_round in given.per_round:
            for attack, bad in [("none", 0), *((a, b) for a in given.only for b in given.bad)]:
                row = {
                    rule: [
                        accuracy(method, rule, attack, bad, per_round, seed)
                        for seed in range(given.seeds)
                    ]
                    for rule in given.rules
                }
                found[f"{method}, {per_round} a round, {attack}, {bad} bad"] = row
                cells = " | ".join(f"{statistics.mean(v):.1f}" for v in row.values())
                print(f"| {method} | {per_round} | {attack} | {bad} | {cells} |", flush=True)
                write(given.out, found)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", action="store_true", help="train federations with bad clients")
    parser.add_argument("--methods", nargs="*", default=["fedavg", "bmsfed"])
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--only", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--bad", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--per-round", nargs="*", type=int, default=[10, 5])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    if given.attacks:
        attacks(given)
        return
    found = costs()
    print("| updates | " + " | ".join(next(iter(found.values()))) + " |")
    print("|---|" + "---|" * (len(RULES) + 1))
    for size, row in found.items():
        print(f"| {size} | " + " | ".join(f"{s:.2f}" for s in row.values()) + " |")
    write(given.out, found)


if __name__ == "__main__":
    main()
