"""The Flower ServerApp, for ``flwr run``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from bmsfed_app.config import config_of, idle_notes, load_config, split_pairs
from bmsfed_app.paths import default_run_dir
from server_app.best import ended_early
from server_app.console import TableCallback
from server_app.experiment import run_experiment
from server_app.failures import ending
from server_app.run_folder import RunFolder
from server_app.sending import SendFolder
from server_app.tracking import with_trackers
from strategies import Callback

app = ServerApp()

#: The experiment that runs where the run config names none.
_DEFAULT = "cg-digits"

_RESUME = "flwr run . --run-config 'resume=\"{}\"'"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names; the last line says how it ended."""
    with ExitStack() as held:
        try:
            folder = folder_from_run_config(context.run_config)
            held.enter_context(folder.writing())
        except Exception as error:
            _end(error, "")
            raise
        sent = SendFolder(folder, _print) if context.run_config.get("send-folder") else None
        try:
            if (number := int(context.run_config.get("round", -1))) >= 0:
                folder.go_back(number)
            folder.check_unchanged()
            for line in folder.record_data(folder.config.check_data()):
                _print(line)
                folder.log.note(line)
            callbacks: list[Callback] = [TableCallback(folder, _print)]
            if sent is not None:
                callbacks.append(sent)
            run_experiment(grid, folder, callbacks=callbacks)
            folder.log.note(_end(None, "", ended_early(folder)))
        except Exception as error:
            folder.log.note(_end(error, _RESUME.format(folder.path)))
            raise
        finally:
            if sent is not None:
                sent.finish()


def _end(error: Exception | None, resume: str, ended: str = "") -> str:
    """Say how the run ended; of an error also in what Flower prints of it, which comes last."""
    line = ending(error, resume, ended)
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
        ``track`` names trackers that are told, too, between spaces.
        ``experiment``, which ``bmsfed run --on`` sends, stands for ``config``: JSON of a file's
        values and overrides.

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
    if told := str(run_config.get("experiment", "")):
        source, experiment = "", json.loads(told)
        overrides = {**experiment["overrides"], **overrides}
        config = config_of(experiment["values"], overrides)
    elif source or not resume:
        source = source or _DEFAULT
        config = load_config(source, overrides)
    if config is not None:
        for note in idle_notes(config, source, overrides):
            _print(note)
    trackers = str(run_config.get("track", "")).replace(",", " ").split()
    if config is None or resume:
        folder = RunFolder.reopen(Path(resume).expanduser(), config, overrides)
        folder.config = with_trackers(folder.config, trackers)
        return folder
    config = with_trackers(config, trackers)
    out = str(run_config.get("out", ""))
    path = default_run_dir(config.dataset_name, config.method, config.seed)
    return RunFolder.create(Path(out).expanduser() if out else path, config, "flwr run")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")  # in one go: other threads write too
    sys.stdout.flush()
