"""What each method costs beyond FedAvg: time and bytes per round on cg-mnist, one table.

``python -m benchmarks.methods --data-dir MNIST [--out results.json] [--methods ...]``: 30 clients,
6 a round, a tenth of the data, 5 local epochs, three rounds in this process and on one thread,
without Flower's processes. Time is CPU seconds of all clients and the server together, without
evaluation, mean of rounds 2 and 3; the first round also measures every client where a method needs
that. Methods that act in a share of the rounds act in all. FedAvg runs first and last: their
difference is the noise. About 15 minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import client, write
from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.methods import METHODS, find_method
from server_app.experiment import build_strategy, initial_model
from strategies import Callback, ModalityStrategy, RoundReport
from strategies.testing import FakeGrid

CLIENTS, ROUNDS = 30, 3


class Clock(Callback):
    """CPU seconds and reports of every round."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.reports: list[RoundReport] = []

    def on_start(self, strategy: ModalityStrategy, num_rounds: int) -> None:
        self.mark = time.process_time()

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        now = time.process_time()
        self.seconds.append(now - self.mark)
        self.reports.append(report)
        assert not report.failures, report.failures
        self.mark = time.process_time()


def configure(method: str, data_dir: str) -> ExperimentConfig:
    """The experiment, with the method acting in every round."""
    values: dict[str, Any] = {"method": method, "clients": CLIENTS, "per_round": 6}
    values |= {"data_fraction": 0.1, "rounds": ROUNDS, "data_dir": data_dir, "device": "cpu"}
    if "until" in find_method(method).model_fields:
        values["until"] = 1.0
    return load_config("cg-mnist", values)


def measure(method: str, data_dir: str) -> dict[str, float]:
    """One federation of the method."""
    config = configure(method, data_dir)
    clock, strategy = Clock(), build_strategy(config)
    state = strategy.run(
        FakeGrid({f"node {i}": client(i, CLIENTS) for i in range(CLIENTS)}),
        initial_model(config),
        num_rounds=ROUNDS,
        settings=config.client_settings().to_json(),
        round_settings=lambda r: {"lr": config.learning_rate(r), "progress": (r - 1) / ROUNDS},
        callbacks=[clock],
        min_clients=CLIENTS,
    )
    later = clock.reports[1:]
    return {
        "seconds": mean(clock.seconds[1:]),
        "first": clock.seconds[0],
        "down": mean(r.bytes_down for r in later) / 1024,
        "up": mean(r.bytes_up for r in later) / 1024,
        "state": len(state.to_bytes()) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="", help="folder with the MNIST files")
    parser.add_argument(
        "--methods", nargs="*", default=[m for m in METHODS.names() if m != "fedavg"]
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    measure("fedavg", given.data_dir)  # loads the data, warms up
    print(
        f"{'method':<18} {'CPU s/round':>11} {'x':>5} {'first round':>11} {'KiB down':>9} "
        f"{'KiB up':>7} {'x':>5} {'state MiB':>9}"
    )
    for name in ["fedavg", *given.methods, "fedavg again"]:
        found[name] = f = measure(name.partition(" ")[0], given.data_dir)
        base = found["fedavg"]
        time_ratio = f["seconds"] / base["seconds"]
        byte_ratio = (f["down"] + f["up"]) / (base["down"] + base["up"])
        print(
            f"{name:<18} {f['seconds']:>11.2f} {time_ratio:>5.2f} {f['first']:>11.2f} "
            f"{f['down']:>9.0f} {f['up']:>7.0f} {byte_ratio:>5.2f} {f['state']:>9.2f}",
            flush=True,
        )
    write(given.out, found)


if __name__ == "__main__":
    main()
