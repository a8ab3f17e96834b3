"""Run one of the four versions in Flower's simulation: ``python run.py message_bmsfed``."""

import argparse
import importlib
import sys
from pathlib import Path

from flwr.simulation import run_simulation

VERSIONS = ("message_fedavg", "message_bmsfed", "classic_fedavg", "classic_bmsfed")


def main() -> None:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", choices=VERSIONS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=9)
    args = parser.parse_args()
    app = importlib.import_module(f"two_towers.{args.version}")
    app.ROUNDS = args.rounds
    run_simulation(
        app.server_app,
        app.client_app,
        num_supernodes=args.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
