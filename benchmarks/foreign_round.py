"""What the strategies cost in somebody else's project: seconds of the server per round.

``python -m benchmarks.foreign_round [--arrays 60] [--size 200000] [--clients 10]`` lets clients
without any work of their own answer flwr's FedAvg, ours, and BMSFed (which sketches every client's
update), over a grid in this process. The median round is printed.
"""

from __future__ import annotations

import argparse
import logging
import time
from statistics import median
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as StockFedAvg

from strategies import BMSFed, ClientInfo, FedAvg
from strategies.client import ModalityMod
from strategies.testing import FakeGrid

PARTS = {"image": "vision.*", "text": "bert.*", "head": "classifier.*"}


def client(name: str, mod: bool) -> Any:
    """A node that answers with what it was sent."""
    translate = ModalityMod(lambda context: ClientInfo(name, ("image", "text"), 100))
    app = ClientApp(mods=[translate] if mod else [])
    if mod:
        translate.register(app)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        scores = {"score.image": 0.8, "score.text": 0.2}
        metrics = MetricRecord({"num-examples": 100, **scores})
        arrays = message.content["arrays"]
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return lambda message: app(message, Context(0, 0, {}, RecordDict(), {})).content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrays", type=int, default=60)
    parser.add_argument("--size", type=int, default=200_000, help="numbers in an array")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    towers = ("vision", "bert", "classifier")
    rng = np.random.default_rng(0)
    model = {
        f"{towers[min(i * 3 // given.arrays, 2)]}.{i}": rng.normal(size=given.size).astype("f4")
        for i in range(given.arrays)
    }
    strategies = {
        "flwr FedAvg": (StockFedAvg(), False),
        "FedAvg, plain clients": (FedAvg(parts=PARTS), False),
        "FedAvg, with the mod": (FedAvg(parts=PARTS), True),
        "BMSFed": (BMSFed(parts=PARTS), True),
    }
    for name, (strategy, mod) in strategies.items():
        grid = FakeGrid({str(n): client(str(n), mod) for n in range(given.clients)})
        arrays, seconds = ArrayRecord({n: Array(v) for n, v in model.items()}), []
        for server_round in range(1, given.rounds + 2):  # the first one enrols and measures
            started = time.perf_counter()
            sent = list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))
            replies = list(grid.send_and_receive(sent))
            answered = time.perf_counter()
            found, _ = strategy.aggregate_train(server_round, replies)
            assert found is not None
            arrays = found
            seconds.append((answered - started, time.perf_counter() - answered))
        configure, aggregate = (median(s[i] for s in seconds[1:]) for i in (0, 1))
        print(f"{name:22} sending {configure:6.2f} s  aggregating {aggregate:6.2f} s")


if __name__ == "__main__":
    main()
