"""One row in one way, in a process of its own; writes when each round was done.

``python -m benchmarks.engines.columns ROW COLUMN FILE``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.engines.rows import Row, chosen

#: When every round was done, and the model then: a hash and its size; empty where it is not ours.
Measured = tuple[list[float], dict[str, Any]]


def bare(row: Row) -> Measured:
    """The same tensors and clients in a loop, without messages."""
    import torch

    from client_app.data import local_data
    from client_app.training import run_task
    from server_app.experiment import build_strategy, initial_model

    config = row.config()
    torch.set_num_threads(1)
    strategy, settings, ends = build_strategy(config), config.client_settings(), []
    strategy.start_from(initial_model(config), settings.network.frozen())
    nodes = ({"partition-id": n, "num-partitions": row.clients} for n in range(row.clients))
    clients = {d.client_id: d for d in (local_data(node, settings) for node in nodes)}
    everybody = [client.info() for client in clients.values()]
    for number in range(1, row.rounds + 1):
        told = replace(settings, **_of_round(config, number))
        updates = []
        for assignment in strategy.configure_fit(number, everybody):
            task = strategy.task(number, assignment, "train")
            updates.append(run_task(task, clients[assignment.client_id], told))
        strategy.aggregate_fit(number, updates)
        ends.append(time.time())
    return ends, _model(strategy.state.arrays)


def inline(row: Row) -> Measured:
    """Our engine in this process."""
    from bmsfed_app.engine import InlineGrid
    from client_app.app import app

    with InlineGrid(app, row.clients) as grid:
        return _over(grid, row)


def ray(row: Row, workers: int) -> Measured:
    """Our engine on Ray."""
    from bmsfed_app.cli.engines import work_of
    from bmsfed_app.engine import RayGrid
    from bmsfed_app.models.cost import model_bytes
    from client_app.app import app

    size = model_bytes(row.config().network_spec())
    with RayGrid(
        app,
        row.clients,
        workers=workers,
        object_store=int(1.1 * size * (2 + workers + min(row.per_round, 8))),
        describe=work_of([row.samples] * row.clients),
    ) as grid:
        return _over(grid, row)


def simulation(row: Row) -> Measured:
    """Our app on Flower's simulation."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from client_app.app import app as client_app

    app, found = ServerApp(), list[Measured]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        found.append(_over(grid, row))

    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app=app,
        client_app=client_app,
        num_supernodes=row.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
            "init_args": {"log_to_driver": False},
        },
    )
    return found[0]


def _over(grid: Any, row: Row) -> Measured:
    """Run a row's rounds over a grid, as an experiment does, but without evaluation and files."""
    from server_app.experiment import build_strategy, initial_model
    from strategies import Callback
    from strategies.decisions import Decisions

    class Clock(Callback):
        def after_round(self, strategy: Decisions, report: Any) -> None:
            assert not report.failures, report.failures
            ends.append(time.time())

    config, ends = row.config(), list[float]()
    settings = config.client_settings()
    state = build_strategy(config).run(
        grid,
        initial_model(config),
        num_rounds=row.rounds,
        settings=settings.to_json(),
        round_settings=lambda number: _of_round(config, number),
        callbacks=[Clock()],
        min_clients=row.clients,
        connect_timeout=600,
        frozen=settings.network.frozen(),
    )
    return ends, _model(state.arrays)


def _of_round(config: Any, number: int) -> dict[str, Any]:
    return {"lr": config.learning_rate(number), "progress": (number - 1) / config.rounds}


def _model(arrays: Any) -> dict[str, Any]:
    found = hashlib.sha256()
    for name, value in arrays.items():
        found.update(name.encode() + value.tobytes())
    return {"model": found.hexdigest()[:12], "bytes": sum(v.nbytes for v in arrays.values())}


def stock(row: Row) -> Measured:
    """Flwr's own FedAvg and a stock client, by ``flwr run``."""
    from benchmarks.engines.stock import flwr_run

    return flwr_run(row), {}


def pfl(row: Row) -> Measured:
    """The same work by pfl-research."""
    from benchmarks.engines.others import pfl

    return pfl(row), {}


def fluke(row: Row) -> Measured:
    """The same work by fluke."""
    from benchmarks.engines.others import fluke

    return fluke(row), {}


#: By name; the last two need environments of their own.
COLUMNS: dict[str, Callable[[Row], Measured]] = {
    "bare": bare,
    "inline": inline,
    "ray 1": lambda row: ray(row, 1),
    "ray 2": lambda row: ray(row, 2),
    "run_simulation": simulation,
    "flwr run": stock,
    "pfl": pfl,
    "fluke": fluke,
}


def main() -> None:
    """Measure, and write ``{"ends": …}`` and what is known of the model."""
    row, column, file = sys.argv[1:]
    ends, model = COLUMNS[column](chosen(row))
    Path(file).write_text(json.dumps({"ends": ends, **model}))


if __name__ == "__main__":
    main()
