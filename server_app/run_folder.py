"""The run folder: configuration, history, selections, checkpoint, final model.

Rows are appended and flushed; the checkpoint is replaced atomically and comes last in a round, so
whatever interrupts a run, the folder holds a complete round and resuming drops what came after.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml
from safetensors.numpy import save_file

from bmsfed_app.config import MACHINE_KEYS, ExperimentConfig, check_config
from bmsfed_app.datasets import Account, data_changes
from bmsfed_app.plugins import PlugIn
from bmsfed_app.record.files import (
    RunFolderError,
    drop_rows_after,
    read_json,
    replacing,
    write_json,
)
from bmsfed_app.record.origin import bundle, commit, hardware, source_hash, versions
from bmsfed_app.record.rows import RunInfo
from server_app.run_data import difference, seen
from strategies import Arrays, ServerState
from strategies.state import read_extra


class RunFolder:
    """One run's files; create with :meth:`create` or :meth:`reopen`."""

    def __init__(self, path: Path, config: ExperimentConfig) -> None:
        self.path, self.config = path, config
        self.history = path / "history.jsonl"
        self.selection = path / "selection.jsonl"
        self.info_file = path / "run.json"
        self.checkpoint_file = path / "checkpoint.safetensors"
        self.account: Account | None = None

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
            write_json(folder.info_file, folder._description(command))
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
            If the folder holds no run, or one of another configuration or with other versions of
            what it takes from elsewhere.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise RunFolderError(f"'{path}' is not a run folder: it has no config.yaml")
        saved = check_config(yaml.safe_load(file.read_text(encoding="utf-8")))
        if config is not None and (differing := _differing(config, saved)):
            key = differing[0]
            raise RunFolderError(
                f"'{path}' is a run of another configuration: {key} is {getattr(saved, key)!r} "
                f"there, {getattr(config, key)!r} here ({', '.join(differing)} differ); resume it "
                "as it was, or start a new run"
            )
        folder = cls(path, config or saved)
        folder._check_plug_ins()
        return folder

    def _check_plug_ins(self) -> None:
        there = [PlugIn(**p) for p in read_json(self.info_file, RunInfo).plugins]
        here = self.config.plug_ins()
        if there != here:
            began, now = (", ".join(map(str, of)) or "no plug-in" for of in (there, here))
            raise RunFolderError(
                f"'{self.path}' began with {began}; here is {now}: go on with what it began with, "
                "or start a new run"
            )

    def _description(self, command: str) -> RunInfo:
        info = self.config.dataset_info()
        return RunInfo(
            method=self.config.method,
            dataset=self.config.dataset_name,
            seed=self.config.seed,
            modalities=list(info.modalities),
            class_names=list(info.class_names),
            versions=versions(),
            commit=commit(),
            source=source_hash(),
            bundle=bundle(),
            command=command or " ".join(sys.argv),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            hardware=hardware(),
            frozen=sorted(self.config.network_spec().frozen()),
            plugins=[p.to_json() for p in self.config.plug_ins()],
        )

    # --- the data -----------------------------------------------------------------------------

    def check_unchanged(self) -> None:
        """Refuse to go on with data that has changed, before it is prepared anew.

        Raises
        ------
        RunFolderError
            If what is prepared is what the run began on, and the data folder differs from it.
        """
        config, then = self.config, read_json(self.info_file, RunInfo)
        if not (self.history.exists() and then.data):
            return
        prepared, why = data_changes(config.dataset, config.data_folder(), config.dataset_settings)
        if why and prepared == then.data:
            raise self._other_data(why)

    def _other_data(self, fault: str) -> RunFolderError:
        return RunFolderError(
            f"'{self.path}' is a run on other data: {fault}; bring the data back to resume it, or "
            "start a new run"
        )

    def record_data(self, account: Account) -> list[str]:
        """Note what data the run sees; one that began on other data is refused.

        Returns
        -------
        list of str
            What to tell the user of it.

        Raises
        ------
        RunFolderError
            If the run began on other data, or with another partition file.
        """
        then = read_json(self.info_file, RunInfo)
        now = then.model_copy(update=seen(account, self.config))
        lines = list(account.lines())
        if not self.history.exists():
            write_json(self.info_file, now)
        elif fault := difference(then, now):
            raise self._other_data(fault)
        elif not (then.data and now.data):
            lines.append(
                "note: whether the run began on this data is not known "
                f"({self.info_file} does not say what it was)"
            )
        self.account = account
        return lines

    # --- writing ------------------------------------------------------------------------------

    def save_checkpoint(self, state: ServerState) -> None:
        """Replace the checkpoint, atomically and durably."""
        with replacing(self.checkpoint_file) as temporary:
            state.save(temporary, {"config": self.config.model_dump()})

    def save_model(self, arrays: Arrays) -> None:
        """Write the final model as safetensors, by state-dict name."""
        with replacing(self.path / "model.safetensors") as temporary:
            save_file(arrays, temporary)

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
            saved = ExperimentConfig(**read_extra(data)["config"])
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(
                f"the checkpoint '{self.checkpoint_file}' cannot be read ({error}); start a new run"
            ) from None
        if differing := _differing(self.config, saved):
            raise RunFolderError(
                f"the checkpoint '{self.checkpoint_file}' is of another configuration "
                f"({', '.join(differing)} differ): resume with the configuration it was made with"
            )
        self._truncate(state.round or -1)  # round 0 is evaluated and written anew
        return state

    def _truncate(self, last_round: int) -> None:
        for file in (self.history, self.selection):
            drop_rows_after(file, last_round)


def _differing(ours: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
    """Keys that make two configurations different runs."""
    keys = [k for k in ExperimentConfig.model_fields if k not in MACHINE_KEYS]
    return [k for k in keys if getattr(ours, k) != getattr(theirs, k)]
