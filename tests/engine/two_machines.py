"""A Ray of one's own beside a cluster that others began; three rounds on two nodes of theirs.

The second node is ended in the second round.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ray
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from ray.cluster_utils import Cluster

from bmsfed_app.engine import RayGrid

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Say where one is; wait for a file if told so."""
    where = ray.get_runtime_context().get_node_id()
    orders = message.content.config_records["config"]
    if orders["folder"]:
        folder = Path(str(orders["folder"]))
        (folder / str(context.node_config["partition-id"])).write_text(where)
        # Who works on the machine that is ended never gets there.
        while not (folder / "ended").exists() or (folder / "ended").read_text() in ("", where):
            time.sleep(0.05)
    number = int(context.node_config["partition-id"])
    return Message(RecordDict({"metrics": MetricRecord({"number": number})}), reply_to=message)


def ask(grid: RayGrid, folder: str = "") -> dict[str, Any]:
    """One round with all clients."""
    content = RecordDict({"config": ConfigRecord({"folder": folder})})
    nodes = grid.get_node_ids()
    replies = list(grid.send_and_receive([Message(content, n, "train") for n in nodes]))
    lost = sorted(r.metadata.src_node_id - 1 for r in replies if r.has_error())
    answered = sorted(r.metadata.src_node_id - 1 for r in replies if not r.has_error())
    return {"answered": answered, "lost": lost, "workers": sum(p.started for p in grid._processes)}


def main(folder: Path) -> None:
    """Print what each round came to, and whether a grid without an address kept to itself."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with RayGrid(app, 2) as grid:
        own = [node["NodeID"] for node in ray.nodes()]
    alone = cluster.head_node.node_id not in own
    with RayGrid(app, 4, address=cluster.address) as grid:
        rounds = [ask(grid)]

        def end_second() -> None:
            # Both nodes work on a client when two of them have said where they are.
            while len({f.read_text() for f in folder.iterdir() if f.read_text()}) < 2:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)
            (folder / "ended").write_text(second.node_id)

        ender = threading.Thread(target=end_second)
        ender.start()
        rounds.append(ask(grid, str(folder)))
        ender.join()
        rounds.append(ask(grid))
    cluster.shutdown()
    print(json.dumps({"alone": alone, "rounds": rounds}))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
