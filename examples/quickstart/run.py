"""Run one of the three projects, as it is, on stand-in data: ``python run.py with_modalities``.

This does what ``flwr run`` does with a simulated federation, but in this process, and nothing is
installed or downloaded.
"""

import argparse
import os
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

from bmsfed_app.engine import InlineGrid, run_apps

HERE = Path(__file__).resolve().parent
PROJECTS = ("published", "with_strategy", "with_modalities")
KINDS = ("serverapp", "clientapp")


def simulate(project: str, clients: int, overrides: dict[str, Any]) -> None:
    """Simulate a project's apps in the current folder; ``final_model.pt`` is left there."""
    sys.path.insert(0, str(HERE / project))
    settings = tomllib.loads((HERE / project / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    server_app, client_app = (
        getattr(import_module(module), name)
        for module, name in (settings["components"][kind].split(":") for kind in KINDS)
    )
    # `flwr run` would fill in the run's config.
    config = settings["config"] | overrides
    with InlineGrid(client_app, clients, run_config=config) as grid:
        run_apps(server_app, grid, config)


def main() -> None:
    """Read the command line, write the data, simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", choices=PROJECTS, nargs="?", default=PROJECTS[-1])
    parser.add_argument("--clients", type=int, default=10, help="at least 2 (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="for files")
    options = parser.parse_args()

    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")  # never ask the hub
    from offline_data import write  # beside this file; loads `datasets`

    write(options.folder)
    os.chdir(options.folder)
    simulate(options.project, options.clients, {"num-server-rounds": options.rounds})


if __name__ == "__main__":
    main()
