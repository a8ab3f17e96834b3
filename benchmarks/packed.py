"""Clients trained together (``packed_clients``) against the same clients one by one.

``python -m benchmarks.packed [--device cuda] [--out results.json]``: 4, 8 and 16 clients of
cg-digits (four convolutions, its configuration) and of a table of two modalities (two layers of
64); one task of FedAvg and of BMSFed each, one thread; medians of three, in turn. On a CPU its own
seconds count, whatever else runs, on a GPU the clock's. About three minutes on an idle CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import write
from bmsfed_app.config import load_config
from bmsfed_app.datasets.base import Renderer, Split
from bmsfed_app.models import NetworkSpec, build_network
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData, local_data, training_device
from client_app.packed import train_together
from client_app.training import run_task
from strategies import Orders, Prototypes, Task

Work = tuple[ClientSettings, list[LocalData]]


def digits(method: str, clients: int, device: str) -> Work:
    """The shares of cg-digits, by its own configuration."""
    settings = load_config("cg-digits", {"method": method, "device": device}).client_settings()
    nodes = [{"partition-id": k, "num-partitions": clients} for k in range(clients)]
    return settings, [local_data(node, settings) for node in nodes]


def table(method: str, clients: int, device: str) -> Work:
    """200 samples each, of 32 and 16 random numbers."""
    given, _ = digits(method, clients, device)
    shapes = {"left": (32,), "right": (16,)}
    network = NetworkSpec(dict.fromkeys(shapes, "mlp"), shapes, 10)
    rng = torch.Generator().manual_seed(0)
    n = 200 * clients
    split = Split(
        torch.randint(10, (n,), generator=rng),
        {m: torch.randn(n, *shape, generator=rng) for m, shape in shapes.items()},
        {m: Renderer((m,), lambda x: x) for m in shapes},
    ).to(training_device(given))
    rows = torch.arange(n, device=split.labels.device).split(200)
    data = [LocalData(f"c{k}", split, index, tuple(shapes), 10) for k, index in enumerate(rows)]
    return replace(given, network=network), data


def tasks(settings: ClientSettings, data: list[LocalData]) -> list[Task]:
    """A round's, with prototypes as the server would have them."""
    spec, rng = settings.network, np.random.default_rng(0)
    arrays = {n: v.numpy() for n, v in build_network(spec, 0).state_dict().items()}
    known = {
        m: Prototypes(
            rng.normal(size=(spec.num_classes, spec.width(m))).astype(np.float32),
            np.ones(spec.num_classes, np.int64),
        )
        for m in spec.encoders
    }
    modalities = tuple(spec.encoders)
    orders = [Orders("train", modalities, 2, c.client_id, prototypes=known) for c in data]
    return [Task(told, arrays) for told in orders]


def medians(
    ways: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each way, taken in turn after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if repeat:
                seconds[name].append(clock() - started)
    return {name: statistics.median(s) for name, s in seconds.items()}


def compared(work: Work, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of one round's training, one by one and packed."""
    settings, data = work
    what = tasks(settings, data)

    def one_by_one() -> None:
        for task, client in zip(what, data, strict=True):
            run_task(task, client, settings)

    def packed() -> None:
        train_together(what, data, settings)

    return medians({"one_by_one": one_by_one, "packed": packed}, repeats, clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    figures = []
    for make, method, clients in product((digits, table), ("fedavg", "bmsfed"), (4, 8, 16)):
        found = compared(make(method, clients, given.device), given.repeats, clock)
        alone, packed = found["one_by_one"], found["packed"]
        print(
            f"{make.__name__:<7} {method:<7} {clients:>3} clients: one by one {alone:7.3f} s, "
            f"packed {packed:7.3f} s, {alone / packed:5.2f} times as fast",
            flush=True,
        )
        figures.append({"data": make.__name__, "method": method, "clients": clients, **found})
    write(given.out, {"device": given.device, "seconds": figures})


if __name__ == "__main__":
    main()
