"""Releasing a client id from the key of the node that it belongs to."""

from __future__ import annotations

from pathlib import Path

from bmsfed_app.record.files import RunFolderError, replacing
from server_app.checkpoints import read
from server_app.run_folder import RunFolder
from strategies.state import read_extra


def forget(run: Path, client_id: str) -> str:
    """Let the next node that enrols with a client id have it, once the run goes on.

    What is remembered of the client stays. All checkpoints that are kept are changed, so that going
    back to an earlier round does not bring the binding back.

    Parameters
    ----------
    run : Path
        The run's folder; no run may write in it meanwhile.
    client_id : str

    Returns
    -------
    str
        The key that the id belonged to.

    Raises
    ------
    RunFolderError
        If the id belongs to no key, or a checkpoint cannot be read or written, or a run goes on.
    """
    folder = RunFolder.reopen(run)
    checkpoints = folder.checkpoints
    files = [checkpoints.newest, *map(checkpoints.of, checkpoints.before())]
    with folder.lock.held():
        states = {file: read(file, folder.config) for file in files if file.exists()}
        bound = {c: key for state in states.values() for c, key in state.bindings.items()}
        if client_id not in bound:
            raise RunFolderError(
                f"client id '{client_id}' belongs to no node's key in '{run}'; those that do: "
                f"{', '.join(sorted(bound)) or 'none'}"
            )
        for file, state in states.items():
            if state.bindings.pop(client_id, None) is not None:
                extra = read_extra(file.read_bytes())
                with replacing(file) as temporary:
                    state.save(temporary, extra)
    return bound[client_id]
