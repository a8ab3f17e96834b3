"""What a round's messages cost in this process: CPU milliseconds for every client that trained.

``python -m benchmarks.engines.spent [ROW] [--way "ray 2"]``. CPU time, which other programs hardly
disturb; with Ray that of the server's process alone, Ray's threads in it included. Indented lines
are part of what stands above them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import client_app.app
import strategies.federation.loop as loop
import strategies.federation.transport as transport
from benchmarks.engines.columns import COLUMNS
from benchmarks.engines.rows import FEW, ROWS
from bmsfed_app.engine.base import SimulationGrid
from bmsfed_app.engine.inline import InlineGrid
from bmsfed_app.models import MultiModalNetwork
from client_app import training
from strategies.decisions import Decisions
from strategies.local_grid import LocalGrid

#: Owner, name and how it is shown, in this order.
_PARTS = [
    (loop.FederatedRun, "prepare", "server: messages made"),
    (LocalGrid, "push_messages", "grid: pushed"),
    (transport, "payload_bytes", "server: bytes counted"),
    (client_app.app, "_settings", "client: settings read"),
    (client_app.app, "local_data", "client: data found"),
    (client_app.app, "unpack_task", "client: task read"),
    (client_app.app, "run_task", "client: task"),
    (MultiModalNetwork, "restart", "    model taken over"),
    (training, "train", "    training"),
    (training, "check_answer", "    answer checked"),
    (client_app.app, "pack_update", "client: answer made"),
    (loop.FederatedRun, "judge", "server: answers read and checked"),
    (Decisions, "aggregate_fit", "server: average"),
]


def _timed(owner: Any, name: str, what: str, spent: dict[str, float]) -> Callable[..., Any]:
    function = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.process_time() - began

    return call


def _parts(way: str) -> list[tuple[Any, str, str]]:
    if way == "inline":
        return [*_PARTS, (InlineGrid, "pull_messages", "grid: pulled, with all that clients do")]
    import ray

    from bmsfed_app.engine import ray_grid

    return [
        *_PARTS,
        (ray_grid.RayGrid, "pull_messages", "grid: pulled"),
        (ray_grid.RayGrid, "_hand_out", "    work handed out"),
        (ray_grid.RayGrid, "_answered", "    answers taken in"),
        (ray, "wait", "    ray.wait"),
        (ray, "get", "    ray.get"),
        (ray, "put", "    ray.put"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", nargs="?", choices=ROWS, default=FEW)
    parser.add_argument("--way", choices=["inline", "ray 1", "ray 2"], default="inline")
    given = parser.parse_args()
    row, spent = ROWS[given.row], dict[str, float]()
    parts = _parts(given.way)
    enrolling = SimulationGrid.get_node_ids  # asked first of all: until then all is preparation
    with ExitStack() as stack:
        for owner, name, what in parts:
            stack.enter_context(patch.object(owner, name, _timed(owner, name, what, spent)))
        began: list[float] = []

        def get_node_ids(grid: SimulationGrid) -> Any:
            began.append(time.process_time())
            return enrolling(grid)

        stack.enter_context(patch.object(SimulationGrid, "get_node_ids", get_node_ids))
        COLUMNS[given.way](row)
        whole = time.process_time() - began[0]
    trained = row.rounds * row.per_round
    print(f"{row.about}, {given.way}: CPU ms a client, enrolling included")
    for _, _, what in parts:
        if what in spent:
            print(f"{what:<45} {1000 * spent[what] / trained:8.2f}")
    print(f"{'all':<45} {1000 * whole / trained:8.2f}")


if __name__ == "__main__":
    main()
