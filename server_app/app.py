"""The Flower ServerApp, for ``flwr run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from bmsfed_app.config import idle_notes, load_config, split_pairs
from bmsfed_app.paths import default_run_dir
from server_app.console import TableCallback
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import FederationError, Paused

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names."""
    try:
        folder = folder_from_run_config(context.run_config)
        folder.check_unchanged()
        for line in folder.record_data(folder.config.check_data()):
            _print(line)
        run_experiment(grid, folder, callbacks=[TableCallback(folder, _print)])
    except Paused as error:
        _print(f"bmsfed: paused: {error}")
        _print(f"resume with: --run-config 'resume=\"{folder.path}\"'")
        raise
    except (ValueError, FederationError) as error:
        _print(f"bmsfed: {error}")
        raise


def folder_from_run_config(run_config: Mapping[str, Any]) -> RunFolder:
    r"""Turn ``flwr run``'s run config into a run folder.

    Parameters
    ----------
    run_config : mapping
        ``config`` names the YAML file; ``method``, ``rounds``, ``seed``, ``data-dir`` override
        it unless empty (0 rounds, seed -1); ``set`` holds further "key=value" pairs, separated
        by spaces; ``out`` and ``resume`` name run folders on the ServerApp's machine. A pair with
        spaces in it stands in double quotes, and all of them then in single ones:
        ``--run-config "set='lr=0.1 \"subsets=[[a], [b]]\"'"``.

    Raises
    ------
    ConfigError, RunFolderError
        If anything in it cannot be used.
    """
    overrides: dict[str, Any] = {}
    for key, empty in (("method", ""), ("rounds", 0), ("seed", -1), ("data-dir", "")):
        value = run_config.get(key, empty)
        if value != empty:
            overrides[key.replace("-", "_")] = value
    overrides |= split_pairs(str(run_config.get("set", "")))
    source = str(run_config.get("config", "cg-digits"))
    config = load_config(source, overrides)
    for note in idle_notes(config, source, overrides):
        _print(note)
    if resume := str(run_config.get("resume", "")):
        return RunFolder.reopen(Path(resume).expanduser(), config)
    out = str(run_config.get("out", ""))
    path = default_run_dir(config.dataset_name, config.method, config.seed)
    return RunFolder.create(Path(out).expanduser() if out else path, config, "flwr run")


def _print(line: str) -> None:
    print(line, flush=True)
