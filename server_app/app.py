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
from server_app.failures import ending
from server_app.run_folder import RunFolder

app = ServerApp()

#: The experiment that runs where the run config names none.
_DEFAULT = "cg-digits"

_RESUME = "flwr run . --run-config 'resume=\"{}\"'"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names; the last line says how it ended."""
    try:
        folder = folder_from_run_config(context.run_config)
    except Exception as error:
        _end(error, "")
        raise
    with folder.writing():
        try:
            if (number := int(context.run_config.get("round", -1))) >= 0:
                folder.go_back(number)
            folder.check_unchanged()
            for line in folder.record_data(folder.config.check_data()):
                _print(line)
                folder.log.note(line)
            run_experiment(grid, folder, callbacks=[TableCallback(folder, _print)])
        except Exception as error:
            folder.log.note(_end(error, _RESUME.format(folder.path)))
            raise
        folder.log.note(_end(None, ""))


def _end(error: Exception | None, resume: str) -> str:
    """Say how the run ended; of an error also in what Flower prints of it, which comes last."""
    line = ending(error, resume)
    _print(f"bmsfed: {line}")
    if error is not None:
        error.add_note(f"bmsfed: {line}")
    return line


def folder_from_run_config(run_config: Mapping[str, Any]) -> RunFolder:
    r"""Turn ``flwr run``'s run config into a run folder.

    Parameters
    ----------
    run_config : mapping
        ``config`` names the YAML file; ``method``, ``rounds``, ``seed``, ``data-dir`` override
        it unless empty (0 rounds, seed -1); ``set`` holds further "key=value" pairs, separated
        by spaces; ``out`` and ``resume`` name run folders on the ServerApp's machine. A pair with
        spaces in it stands in double quotes, and all of them then in single ones:
        ``--run-config "set='lr=0.1 \"subsets=[[a], [b]]\"'"``. With ``resume`` the folder's own
        configuration holds; what else is given must be as it is there, or say where and how fast.

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
    source, resume = (str(run_config.get(key, "")) for key in ("config", "resume"))
    config = None
    if source or not resume:
        config = load_config(source or _DEFAULT, overrides)
        for note in idle_notes(config, source or _DEFAULT, overrides):
            _print(note)
    if config is None or resume:
        return RunFolder.reopen(Path(resume).expanduser(), config, overrides)
    out = str(run_config.get("out", ""))
    path = default_run_dir(config.dataset_name, config.method, config.seed)
    return RunFolder.create(Path(out).expanduser() if out else path, config, "flwr run")


def _print(line: str) -> None:
    print(line, flush=True)
