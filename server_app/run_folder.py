"""The run folder: configuration, history, selections, checkpoint, final model.

Rows are appended and flushed; the checkpoint is replaced atomically and comes last in a round, so
whatever interrupts a run, the folder holds a complete round, and resuming goes on from there: what
came after is kept aside, in ``cut``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.numpy import save_file

from bmsfed_app.config import (
    ConfigError,
    ExperimentConfig,
    change_config,
    check_config,
    check_packages,
)
from bmsfed_app.datasets import Account
from bmsfed_app.devices import find_device, find_precision
from bmsfed_app.plugins import PlugIn
from bmsfed_app.record.files import (
    RunFolderError,
    cut_rows,
    read_config,
    read_json,
    read_rows,
    replacing,
    write_json,
)
from bmsfed_app.record.lock import RunLock
from bmsfed_app.record.origin import bundle, commit, hardware, source_hash, versions
from bmsfed_app.record.rows import Member, RunInfo
from bmsfed_app.record.run_log import RunLog
from server_app.aside import Aside
from server_app.checkpoints import Checkpoints, differing
from server_app.run_data import difference, folder_change, seen
from strategies import Arrays, ServerState

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look


class RunFolder:
    """One run's files; create with :meth:`create` or :meth:`reopen`."""

    def __init__(self, path: Path, config: ExperimentConfig) -> None:
        self.path, self.config = path, config
        self.history = path / "history.jsonl"
        self.selection = path / "selection.jsonl"
        self.info_file = path / "run.json"
        self.clients = path / "clients.json"
        self.summary = path / "summary.json"
        self.model = path / "model.safetensors"
        self.checkpoints = Checkpoints(path)
        self.checkpoint_file = self.checkpoints.newest
        self.lock, self.log = RunLock(path), RunLog(path)
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
    def reopen(
        cls,
        path: Path,
        config: ExperimentConfig | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Open an existing run folder to go on with it.

        Parameters
        ----------
        path : Path
            The run's folder.
        config : ExperimentConfig, optional
            What the caller expects the run to be; by default the folder's own.
        overrides : mapping, optional
            Values that the caller gave, as for :func:`bmsfed_app.config.load_config`. Keys that say
            where and how fast win over the folder's; others must be as they are there.

        Raises
        ------
        RunFolderError
            If the folder holds no run, or one of another configuration or with other versions of
            what it takes from elsewhere.
        ConfigError
            If an override cannot be used, or what its callbacks need is not installed.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise RunFolderError(f"'{path}' is not a run folder: it has no config.yaml")
        try:
            saved = check_config(read_config(file))
        except ConfigError as error:
            raise RunFolderError(f"'{file}': {error}; restore the file from its run") from None
        wanted = config or saved
        if overrides:
            wanted = change_config(wanted, overrides)
        check_packages(wanted)
        if keys := differing(wanted, saved):
            raise RunFolderError(
                f"'{path}' is a run of another configuration: {keys[0]} is "
                f"{getattr(saved, keys[0])!r} there, {getattr(wanted, keys[0])!r} here "
                f"({', '.join(keys)} differ); resume it as it was, or start a new run"
            )
        folder = cls(path, wanted)
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
            hardware=hardware(self.config.device),
            precision=find_precision(self.config.precision, find_device(self.config.device)),
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
        then = read_json(self.info_file, RunInfo)
        if self.history.exists() and (why := folder_change(then, self.config)):
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
        elif then.partition_file not in ("", now.partition_file):
            raise self._other_data("its partition file has changed")
        elif fault := difference(then, account):
            raise self._other_data(fault)
        elif not (then.data and now.data):
            lines.append(
                "note: whether the run began on this data is not known "
                f"({self.info_file} does not say what it was)"
            )
        self.account = account
        return lines

    # --- writing ------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other runs out of the folder, and its log; whoever writes in it holds this.

        Raises
        ------
        RunFolderError
            If another process, or object, writes in it.
        """
        with self.lock.held(), self.log.kept():
            yield

    def save_checkpoint(self, state: ServerState) -> None:
        """Replace the checkpoint, atomically and durably."""
        self.checkpoints.save(state, self.config)

    def save_model(self, arrays: Arrays) -> None:
        """Write the final model as safetensors, by state-dict name."""
        with replacing(self.model) as temporary:
            try:
                save_file(arrays, temporary)
            except SafetensorError as error:  # what the disk said, as a text
                raise OSError(str(error)) from None

    # --- going on -----------------------------------------------------------------------------

    def load_checkpoint(self) -> ServerState | None:
        """Return the state after the last complete round; rows that came after it are cut off.

        Returns None if the run never got as far as a checkpoint.

        Raises
        ------
        RunFolderError
            If the checkpoint is damaged, belongs to another configuration, or is missing beside
            rounds that were recorded.
        """
        state, aside = self.checkpoints.load(self.config), Aside(self.path)
        if state is None and (last := self._last_recorded()) > 0:
            raise RunFolderError(
                f"'{self.path}' has no checkpoint beside {last} recorded rounds: bring "
                f"{self.checkpoint_file.name} back, or {self.checkpoints.way_out(self.config)}"
            )
        # Round 0 is evaluated and written anew.
        self._cut_rows((state.round if state else 0) or -1, aside)
        self._say(aside)
        return state

    def go_back(self, server_round: int) -> None:
        """Make an earlier round the last one; what came after it is kept aside.

        Parameters
        ----------
        server_round : int
            One whose checkpoint is kept; 0 begins the run anew.

        Raises
        ------
        RunFolderError
            If there is no good checkpoint of this round.
        """
        aside = Aside(self.path)
        self.checkpoints.go_back(server_round, self.config, aside)
        self._cut_rows(server_round or -1, aside)
        if server_round == 0:  # what data the run sees is noted anew
            for file in (self.history, self.selection):
                file.unlink(missing_ok=True)
        self._cut_clients(server_round, aside)
        aside.take(self.model)
        aside.take(self.summary)
        self._say(aside)

    def _last_recorded(self) -> int:
        rows = read_rows(self.history)[0] if self.history.exists() else []
        return max((row.round for row in rows), default=0)

    def _cut_rows(self, last_round: int, aside: Aside) -> None:
        for file in (self.history, self.selection):
            if bad := cut_rows(file, last_round, aside.folder):
                log.warning(
                    "'%s': line%s %s cannot be read and %s left out",
                    *(file, "s" * (len(bad) > 1), ", ".join(map(str, bad))),
                    "are" if len(bad) > 1 else "is",
                )

    def _cut_clients(self, server_round: int, aside: Aside) -> None:
        if not self.clients.exists():
            return
        known = read_json(self.clients, dict[str, Member])
        aside.copy(self.clients)
        then = {c: m for c, m in known.items() if m.enrolled_round <= server_round}
        write_json(self.clients, then)

    def _say(self, aside: Aside) -> None:
        if aside.path is not None:
            log.info("what came after the last complete round is kept in '%s'", aside.path)
