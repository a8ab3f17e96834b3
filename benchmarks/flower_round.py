"""(b) A FedAvg round of this app against a minimal stock Flower FedAvg app.

``python -m benchmarks.flower_round --data-dir MNIST [--out results.json]``: same model, data,
clients, batches and central evaluation; both through Flower's simulation on Ray, each in a process
of its own; median seconds from one round's evaluation to the next, the first round left out. About
five minutes. Goal: <= 1.15 where clients do the same work (``prototypes: test``); by default ours
also make prototypes, in one more pass over their data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch.nn import functional as F

from benchmarks.common import write
from bmsfed_app.config import ExperimentConfig, load_config
from bmsfed_app.models import MultiModalNetwork
from bmsfed_app.plugins import check_plug_ins
from bmsfed_app.record.run import read_run
from client_app.data import local_data
from server_app.experiment import build_evaluator, initial_model

ROUNDS = 6


def config(given: argparse.Namespace, prototypes: str) -> ExperimentConfig:
    overrides = {
        "method": "fedavg",
        "data_dir": given.data_dir,
        "rounds": ROUNDS,
        "data_fraction": given.data_fraction,
        "local_epochs": given.local_epochs,
        "prototypes": prototypes,
    }
    return load_config("cg-mnist", overrides)


# --- the stock app ------------------------------------------------------------------------------


def stock_client(experiment: ExperimentConfig) -> ClientApp:
    """A plain ClientApp: whole model down, whole model up."""
    app = ClientApp()
    settings = experiment.client_settings()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        check_plug_ins(settings.plugins)  # in a process that knows none of them yet
        data = local_data(context.node_config, settings)
        network = MultiModalNetwork(settings.network).train()
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        for _ in range(settings.local_epochs):
            for chunk in data.index[torch.randperm(len(data))].split(settings.batch_size):
                inputs = data.split.batch(chunk, network.modalities)
                loss = F.cross_entropy(network(inputs).logits, data.split.labels[chunk])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        content = {
            "arrays": ArrayRecord(network.state_dict()),
            "metrics": MetricRecord({"num-examples": len(data), "loss": float(loss)}),
        }
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    return app


def stock_server(experiment: ExperimentConfig, ends: list[float]) -> ServerApp:
    """flwr's own FedAvg with the same central evaluation."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        experiment.check_data()
        evaluator = build_evaluator(experiment)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            model = {n: v.numpy() for n, v in arrays.to_torch_state_dict().items()}
            found = evaluator(model, None)
            ends.append(time.perf_counter())
            return MetricRecord({"accuracy": found.accuracy})

        strategy = FedAvg(
            fraction_train=float(experiment.per_round) / experiment.clients,
            fraction_evaluate=0.0,
            min_train_nodes=int(experiment.per_round),
            min_evaluate_nodes=0,
            min_available_nodes=experiment.clients,
        )
        model = {n: torch.from_numpy(v) for n, v in initial_model(experiment).items()}
        strategy.start(
            grid,
            ArrayRecord(model),
            num_rounds=ROUNDS,
            train_config=ConfigRecord(),
            evaluate_fn=evaluate,
        )

    return app


def run_stock(experiment: ExperimentConfig) -> list[float]:
    """Seconds of every round of the stock app."""
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    ends: list[float] = []
    run_simulation(
        server_app=stock_server(experiment, ends),
        client_app=stock_client(experiment),
        num_supernodes=experiment.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},  # type: ignore[dict-item]
            "init_args": {"log_to_driver": False},  # type: ignore[dict-item]
        },
    )
    return [b - a for a, b in itertools.pairwise(ends)]


def run_ours(experiment: ExperimentConfig) -> list[float]:
    """Seconds of every round of this app, evaluation included."""
    from rich.console import Console

    from bmsfed_app.cli.simulate import check_experiment, simulate
    from server_app.run_folder import RunFolder

    experiment, shares = check_experiment(experiment)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", experiment)
        if (ended := simulate(run, Console(file=sys.stderr), shares)) is not None:
            raise ended
        done = [r for r in read_run(run.path).rounds if r.round]
        return [r.seconds + r.metrics["seconds_evaluation"] for r in done]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="", help="folder with the MNIST files")
    parser.add_argument("--data-fraction", type=float, default=0.2)
    parser.add_argument("--local-epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--one", choices=["stock", "train", "test"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run = run_stock if given.one == "stock" else run_ours
        prototypes = "train" if given.one == "train" else "test"
        seconds = run(config(given, prototypes))
        print("SECONDS " + json.dumps(seconds))
        return
    found: dict[str, Any] = {}
    names = {
        "stock": "stock flwr FedAvg",
        "test": "ours, prototypes: test",
        "train": "ours, default",
    }
    for one, name in names.items():
        command = [sys.executable, "-m", "benchmarks.flower_round", *sys.argv[1:], "--one", one]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [x for x in done.stdout.splitlines() if "SECONDS " in x]
        if not lines:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        rounds = json.loads(lines[-1].partition("SECONDS ")[2])
        found[name] = {"seconds": rounds, "median": statistics.median(rounds[1:])}
        ratio = found[name]["median"] / found[names["stock"]]["median"]
        print(
            f"{name:<24} {found[name]['median']:6.2f} s a round  {ratio:.2f} of stock", flush=True
        )
    write(given.out, found)


if __name__ == "__main__":
    main()
