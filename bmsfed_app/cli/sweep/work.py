"""One run of a sweep, in a process that has done others before and will do others after."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from bmsfed_app.cli.simulate import check_experiment, simulate
from bmsfed_app.config import MACHINE_KEYS, ExperimentConfig, check_config
from bmsfed_app.record.files import RunFolderError, is_complete, read_config
from bmsfed_app.record.lock import RunInUseError
from bmsfed_app.sweeps import alike_keys, run_key
from server_app.failures import ending
from server_app.run_folder import RunFolder


class Outcome(NamedTuple):
    """How a run ended, and why, where it is not complete."""

    state: Literal["complete", "failed", "elsewhere", "stopped"]
    why: str = ""


def run_one(
    values: Mapping[str, Any], path: Path, command: str, modules: Sequence[str] = (), here: str = ""
) -> Outcome:
    """Run an experiment into its folder, or go on with what is there, to its end.

    Parameters
    ----------
    values : mapping
        The experiment's, as they are checked already.
    path : Path
        The run's folder, which may exist.
    command : str
        What the user called.
    modules, here : list of str, str
        Where plug-ins are found, and the folder that relative paths are relative to.
    """
    sys.path += [entry for entry in modules if entry not in sys.path]
    if here and os.path.isdir(here):
        os.chdir(here)
    try:
        return _run(check_config(values), path, command)
    except RunInUseError as error:
        return Outcome("elsewhere", str(error))
    except Exception as error:  # of this run: the others go on
        name = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        return Outcome("failed", f"{name}{error}")


def _run(config: ExperimentConfig, path: Path, command: str) -> Outcome:
    if _is_alike(path, config):  # completed by another sweep, since this one looked
        return Outcome("complete")
    account = config.check_data()
    config, shares = check_experiment(config)
    folder = _folder(path, config, command)
    with folder.writing():
        if is_complete(path):  # by somebody else, just now
            return Outcome("complete")
        for line in folder.record_data(account):
            folder.log.note(line)
        error = simulate(folder, Console(quiet=True), shares)
        line = ending(error, f"{command}, or bmsfed run --resume {path}")
        folder.log.note(line)
    if error is None:
        return Outcome("complete")
    if isinstance(error, KeyboardInterrupt):
        return Outcome("stopped", line.removeprefix("stopped; "))
    return Outcome("failed", line.removeprefix("FAILED: "))


def _is_alike(path: Path, config: ExperimentConfig) -> bool:
    """Whether a folder holds a complete run of those that ``precision: auto`` stands for."""
    keys = alike_keys(config).values()
    if not (keys and is_complete(path)):
        return False
    saved = check_config(read_config(path / "config.yaml"))
    if not config.clients:  # as many as there were
        saved = saved.model_copy(update={"clients": 0})
    return run_key(saved) in keys


def _folder(path: Path, config: ExperimentConfig, command: str) -> RunFolder:
    """Return the run's folder; a new one appears whole, or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
        try:
            RunFolder.create(new / path.name, config, command)
            (new / path.name).rename(path)
        except OSError:
            if not path.exists():  # nobody was faster
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    folder = RunFolder.reopen(path, None, {k: getattr(config, k) for k in MACHINE_KEYS})
    if run_key(folder.config) != run_key(config):
        raise RunFolderError(
            f"'{path}' is a run of another configuration, or of another version of this app: move "
            "it away to run this one anew, or give another --runs"
        )
    return folder
