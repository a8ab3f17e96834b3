"""The run folder: configuration, history, selections, checkpoint, final model.

Rows are appended and flushed; the checkpoint is replaced atomically and comes last in a round, so
whatever interrupts a run, the folder holds a complete round and resuming drops what came after.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import save_file

from bmsfed_app.config import ExperimentConfig, check_config
from strategies import Arrays, ServerState
from strategies.state import read_extra

#: Keys that say where and how fast, not what is computed: they may differ on resuming.
_FREE_KEYS = {"data_dir", "gpus_per_client", "timeout", "connect_timeout", "min_clients"}


class RunFolderError(ValueError):
    """A run folder cannot be used; the message says which and what to do."""


class RunFolder:
    """One run's files; create with :meth:`create` or :meth:`reopen`."""

    def __init__(self, path: Path, config: ExperimentConfig) -> None:
        self.path, self.config = path, config
        self.history = path / "history.jsonl"
        self.selection = path / "selection.jsonl"
        self.checkpoint_file = path / "checkpoint.safetensors"

    @classmethod
    def create(cls, path: Path, config: ExperimentConfig, command: str = "") -> RunFolder:
        """Make a new run folder.

        Raises
        ------
        RunFolderError
            If the folder already holds something, or cannot be written.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise RunFolderError(
                    f"the output folder '{path}' already holds a run or other files: choose "
                    f"another --out, or continue that run with --resume {path}"
                )
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, config)
            text = yaml.safe_dump(config.model_dump(), sort_keys=False)
            (path / "config.yaml").write_text(text, encoding="utf-8")
            _write_json(path / "run.json", folder._description(command))
        except OSError as error:
            raise RunFolderError(f"cannot write the output folder '{path}': {error}") from None
        return folder

    @classmethod
    def reopen(cls, path: Path, config: ExperimentConfig | None = None) -> RunFolder:
        """Open an existing run folder to go on with it.

        Parameters
        ----------
        path : Path
            The run's folder.
        config : ExperimentConfig, optional
            What the caller expects the run to be; by default the folder's own.

        Raises
        ------
        RunFolderError
            If the folder holds no run, or one of another configuration.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise RunFolderError(f"'{path}' is not a run folder: it has no config.yaml")
        saved = check_config(yaml.safe_load(file.read_text(encoding="utf-8")))
        if config is not None:
            ours, theirs = config.model_dump(), saved.model_dump()
            differing = [k for k in ours if ours[k] != theirs[k] and k not in _FREE_KEYS]
            if differing:
                key = differing[0]
                raise RunFolderError(
                    f"'{path}' is a run of another configuration: {key} is {theirs[key]!r} there, "
                    f"{ours[key]!r} here ({', '.join(differing)} differ); resume it as it was, or "
                    "start a new run"
                )
        return cls(path, config or saved)

    def _description(self, command: str) -> dict[str, Any]:
        info = self.config.dataset_info()
        return {
            "method": self.config.method,
            "dataset": self.config.dataset,
            "seed": self.config.seed,
            "modalities": list(info.modalities),
            "class_names": list(info.class_names),
            "versions": versions(),
            "commit": commit(),
            "command": command or " ".join(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        }

    # --- writing ------------------------------------------------------------------------------

    def append(self, file: Path, rows: list[dict[str, Any]]) -> None:
        """Append rows as JSON lines."""
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, atomically."""
        _write_json(self.path / name, value)

    def save_checkpoint(self, state: ServerState) -> None:
        """Replace the checkpoint, atomically and durably."""
        data = state.to_bytes({"config": self.config.model_dump()})
        _replace(self.checkpoint_file, data)

    def save_model(self, arrays: Arrays) -> None:
        """Write the final model as safetensors, by state-dict name."""
        temporary = self.path / "model.safetensors.tmp"
        save_file(arrays, temporary)
        temporary.replace(self.path / "model.safetensors")

    # --- going on -----------------------------------------------------------------------------

    def load_checkpoint(self) -> ServerState | None:
        """Return the state after the last complete round, and drop rows that came after it.

        Returns None if the run never got as far as a checkpoint.

        Raises
        ------
        RunFolderError
            If the checkpoint is damaged or belongs to another configuration.
        """
        if not self.checkpoint_file.exists():
            self._truncate(-1)
            return None
        try:
            data = self.checkpoint_file.read_bytes()
            state = ServerState.from_bytes(data)
            saved = ExperimentConfig(**read_extra(data)["config"]).model_dump()
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(
                f"the checkpoint '{self.checkpoint_file}' cannot be read ({error}); start a new run"
            ) from None
        ours = self.config.model_dump()
        differing = [k for k in ours if ours[k] != saved[k] and k not in _FREE_KEYS]
        if differing:
            raise RunFolderError(
                f"the checkpoint '{self.checkpoint_file}' is of another configuration "
                f"({', '.join(differing)} differ): resume with the configuration it was made with"
            )
        self._truncate(state.round or -1)  # round 0 is evaluated and written anew
        return state

    def _truncate(self, last_round: int) -> None:
        for file in (self.history, self.selection):
            if file.exists():
                kept = [row for row in read_rows(file) if row["round"] <= last_round]
                text = "".join(json.dumps(row) + "\n" for row in kept)
                _replace(file, text.encode())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line that was cut off is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    names = ("bmsfed", "flwr", "torch", "torchvision", "numpy", "ray")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the app's git commit, with "+" where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        dirty = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    _replace(file, (json.dumps(value, indent=1) + "\n").encode())


def _replace(file: Path, data: bytes) -> None:
    """Write to a temporary file, force it to the disk, then take the old file's place."""
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
