"""The last checkpoints of a run: the newest under one name, some before it under their rounds'."""

from __future__ import annotations

import re
from pathlib import Path

from bmsfed_app.config import MACHINE_KEYS, ExperimentConfig
from bmsfed_app.record.files import RunFolderError, cannot_write, replacing
from server_app.aside import Aside, link
from strategies import ServerState
from strategies.state import read_extra


class Checkpoints:
    """``checkpoint.safetensors``, and ``checkpoints/round-0007.safetensors`` of rounds before it.

    ``checkpoint-best.safetensors`` is that of the best round, where the run keeps it.

    In whatever moment a run is killed, the newest is whole: it takes the place of the one before
    in one step, when that one has its other name already.

    Parameters
    ----------
    run : Path
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.newest = run / "checkpoint.safetensors"
        self.best = run / "checkpoint-best.safetensors"
        self.folder = run / "checkpoints"
        self._round: int | None = None  # of the newest, once it was read or written

    def of(self, server_round: int) -> Path:
        """Return the file of a round before the newest."""
        return self.folder / f"round-{server_round:04d}.safetensors"

    def before(self) -> list[int]:
        """Return the rounds before the newest that are kept, in order."""
        names = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
        found = [re.fullmatch(r"round-(\d+)\.safetensors", name) for name in names]
        return sorted(int(match[1]) for match in found if match)

    def save(self, state: ServerState, config: ExperimentConfig) -> None:
        """Write the newest, atomically and durably, and keep as many as ``keep_checkpoints`` says.

        Raises
        ------
        RunFolderError
            If it cannot be written; the newest is then the one before.
        """
        with replacing(self.newest) as temporary:
            state.save(temporary, {"config": config.model_dump()})
            others = config.keep_checkpoints - 1
            if others and self._round not in (None, state.round) and self.newest.exists():
                assert self._round is not None
                self.folder.mkdir(exist_ok=True)
                link(self.newest, self.of(self._round))
        self._round = state.round
        kept = self.before()
        try:
            for old in kept[: max(len(kept) - others, 0)]:
                self.of(old).unlink()
        except OSError as error:
            raise cannot_write(self.folder, error) from None

    def keep_best(self) -> None:
        """Make the newest the best; killed at whatever moment, there is one or the other.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        link(self.newest, self.best)

    def best_round(self, config: ExperimentConfig) -> int | None:
        """Return the best one's round; None if there is none.

        Raises
        ------
        RunFolderError
            If it is damaged, or belongs to another configuration.
        """
        return read(self.best, config).round if self.best.exists() else None

    def load(self, config: ExperimentConfig) -> ServerState | None:
        """Return the newest, or None if there is none and never was one of a later round than 0.

        Raises
        ------
        RunFolderError
            If it is damaged, or belongs to another configuration.
        """
        if not self.newest.exists():
            return None
        try:
            state = read(self.newest, config)
        except _DamagedError as error:
            raise RunFolderError(f"{error}; {self.way_out(config)}") from None
        self._round = state.round
        return state

    def way_out(self, config: ExperimentConfig) -> str:
        """Say where a run whose newest checkpoint is no good can go back to."""
        for server_round in reversed(self.before()):
            try:
                read(self.of(server_round), config)
            except RunFolderError:
                continue
            return (
                f"go back to the one before, of round {server_round}: bmsfed run --resume "
                f"{self.run} --from-round {server_round} (flwr run: round={server_round})"
            )
        return (
            f"begin anew with --from-round 0 (flwr run: round=0), which keeps all there is in "
            f"'{self.run / 'cut'}', or start another run"
        )

    def go_back(self, server_round: int, config: ExperimentConfig, aside: Aside) -> None:
        """Make the checkpoint of an earlier round the newest; 0 leaves none.

        Whatever moment it is killed in, what is there can be resumed, or says where to go back to.

        Raises
        ------
        RunFolderError
            If there is none of this round, or it is damaged.
        """
        rounds = self.before()
        if server_round == self._newest_round(config):
            return
        if server_round and server_round not in rounds:
            kept = ", ".join(map(str, rounds)) or "none"
            raise RunFolderError(
                f"'{self.run}' keeps no checkpoint of round {server_round} (before the newest: "
                f"{kept}): give one of these, or 0 to begin anew; keep_checkpoints says how many "
                "are kept"
            )
        if server_round:
            read(self.of(server_round), config)
        aside.copy(self.newest)
        if self.best.exists() and (self.best_round(config) or 0) > server_round:
            aside.take(self.best)
        for later in [r for r in rounds if r > server_round or not server_round]:
            aside.take(self.of(later))
        if server_round:
            link(self.of(server_round), self.newest)
            self._round = server_round
        else:
            self.newest.unlink(missing_ok=True)

    def _newest_round(self, config: ExperimentConfig) -> int | None:
        """Return the newest one's round; None if there is none, or if it cannot be read."""
        try:
            state = read(self.newest, config) if self.newest.exists() else None
        except _DamagedError:
            return None
        return state.round if state else None


class _DamagedError(RunFolderError):
    """A checkpoint cannot be read."""


def read(file: Path, config: ExperimentConfig) -> ServerState:
    """Read a checkpoint.

    Raises
    ------
    RunFolderError
        If it is damaged, or belongs to another configuration.
    """
    try:
        data = file.read_bytes()
        state = ServerState.from_bytes(data)
        saved = ExperimentConfig(**read_extra(data)["config"])
    except (OSError, ValueError, KeyError) as error:
        raise _DamagedError(f"the checkpoint '{file}' cannot be read ({error})") from None
    if keys := differing(config, saved):
        raise RunFolderError(
            f"the checkpoint '{file}' is of another configuration ({', '.join(keys)} differ): "
            "resume with the configuration it was made with"
        )
    return state


def differing(ours: ExperimentConfig, theirs: ExperimentConfig) -> list[str]:
    """Return the keys that make two configurations different runs."""
    keys = [k for k in ExperimentConfig.model_fields if k not in MACHINE_KEYS]
    return [k for k in keys if getattr(ours, k) != getattr(theirs, k)]
