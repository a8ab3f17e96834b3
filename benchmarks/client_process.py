"""What the process that answers one message on a device costs beside its work.

A SuperNode starts a fresh process for every message. This is such a process but for its calls to
the SuperNode: it loads Flower's part, torch and the app, and answers an enrolment or a training
message of cg-digits from a shard. Start it on an idle machine, in the environment to be measured::

    python -m benchmarks.client_process [--rounds 5] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from flwr.app import Message

from bmsfed_app.config import load_config
from bmsfed_app.models import build_network
from strategies import Orders, Task
from strategies.local_grid import act_as_a_run, set_message_id
from strategies.protocol import ask_enrolment, pack_task

#: Runs in a fresh interpreter; prints seconds of CPU by phase.
_CHILD = """
import json, resource, sys, time

def lap():
    now = time.process_time()
    spent, lap.last = now - lap.last, now
    return spent
lap.last = 0.0
parts = {"python": lap()}
import flwr.supernode.runtime.run_clientapp
parts["flwr"] = lap()
import client_app
parts["torch"] = lap()
import client_app.app
from strategies.local_grid import act_as_a_run
act_as_a_run()
parts["app"] = lap()
before = set(sys.modules)
import pickle
from types import SimpleNamespace
shard, kind, file = sys.argv[1:]
with open(file, "rb") as written:
    message = pickle.load(written)
context = SimpleNamespace(node_config={"client-id": "a", "data-dir": shard})
reply = (client_app.app.enrol if kind == "enrol" else client_app.app.train)(message, context)
assert not reply.has_error(), reply.error.reason
parts["message"] = lap()
parts["modules_loaded_by_message"] = len(set(sys.modules) - before)
parts["compiler"] = "torch._dynamo" in sys.modules
parts["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(parts))
"""


def message_of(kind: str) -> Message:
    """Return what the server sends: a round of BMSFed."""
    config = load_config("cg-digits", {"rounds": 2})
    settings = config.client_settings().to_json() | {"lr": 0.01, "progress": 0.0}
    if kind == "enrol":
        content = ask_enrolment(settings)
    else:
        network = build_network(config.network_spec(), 0)
        arrays = {n: v.numpy().copy() for n, v in network.state_dict().items()}
        orders = Orders("train", network.modalities, 1, "a", measure_prototypes=True)
        content = pack_task(Task(orders, arrays), settings)
    act_as_a_run()
    message = Message(content, 1, "query.enrol" if kind == "enrol" else "train")
    set_message_id(message, "1")
    return message


def _measure(shard: Path, kind: str, message: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(shard), kind, str(message)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shard", type=Path, help="folder of `bmsfed data split`")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        shard = told.shard or _shard(Path(made))
        figures = {}
        for kind in ("enrol", "train"):
            file = Path(made) / kind
            file.write_bytes(pickle.dumps(message_of(kind)))
            figures[kind] = [_measure(shard, kind, file) for _ in range(told.rounds)]
    for kind, runs in figures.items():
        middle = {k: median(r[k] for r in runs) for k in runs[0]}
        beside = sum(middle[k] for k in ("python", "flwr", "torch", "app"))
        laps = ", ".join(f"{k} {middle[k]:.2f}" for k in ("python", "flwr", "torch", "app"))
        print(
            f"{kind}: {beside:.2f} s before the message ({laps}), {middle['message']:.2f} s for "
            f"it; {middle['MiB']:.0f} MiB; compiler loaded: {bool(middle['compiler'])}"
        )
    if told.out is not None:
        told.out.write_text(json.dumps(figures, indent=1) + "\n")


def _shard(folder: Path) -> Path:
    program = Path(sys.executable).parent / "bmsfed"
    out = folder / "shards"
    subprocess.run(
        [program, "data", "split", "cg-digits", "--clients", "3", "--out", out],
        check=True,
        capture_output=True,
    )
    return out / "client-0"


if __name__ == "__main__":
    main()
