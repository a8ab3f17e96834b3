"""A stock Flower app: flwr's own FedAvg, and a client that trains the same network by hand."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.engines.rows import chosen
from benchmarks.flower_round import stock_client
from server_app.experiment import initial_model

row = chosen(os.environ["BENCHMARK_ROW"])
experiment = row.config()
client = stock_client(experiment)
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write when each round was done."""
    ends = []

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.time())
        return MetricRecord({})

    strategy = FedAvg(
        fraction_train=row.per_round / row.clients,
        fraction_evaluate=0.0,
        min_train_nodes=row.per_round,
        min_evaluate_nodes=0,
        min_available_nodes=row.clients,
    )
    model = {n: torch.from_numpy(v) for n, v in initial_model(experiment).items()}
    result = strategy.start(grid, ArrayRecord(model), num_rounds=row.rounds, evaluate_fn=note)
    if len(result.train_metrics_clientapp) < row.rounds:
        raise SystemExit("there are rounds in which no client trained")
    Path(os.environ["BENCHMARK_ENDS"]).write_text(json.dumps(ends[1:]))  # the first: before all
