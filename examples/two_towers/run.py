"""Run one of the four versions with simulated clients: ``python run.py message_bmsfed``."""

import argparse
import importlib
import sys
from pathlib import Path

import torch

from bmsfed_app import engine

VERSIONS = ("message_fedavg", "message_bmsfed", "classic_fedavg", "classic_bmsfed")


def main() -> None:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", choices=VERSIONS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=9)
    parser.add_argument("--ray", action="store_true", help="clients in a process per core")
    args = parser.parse_args()
    app = importlib.import_module(f"two_towers.{args.version}")
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    kind = engine.RayGrid if args.ray else engine.InlineGrid
    with kind(app.client_app, args.clients) as grid:
        engine.run_apps(app.server_app, grid, {"rounds": args.rounds})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
