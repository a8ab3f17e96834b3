"""What every tracker does: say what a run is, tell its rounds, go on where it was, bear faults."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from bmsfed_app.choice import package_fault
from bmsfed_app.config import ConfigError, ExperimentConfig, change_config
from bmsfed_app.record.files import read_config, read_json, read_rows, write_json
from bmsfed_app.record.rows import RoundRow, Row, RunInfo
from bmsfed_app.registry import nearest
from server_app.callbacks import CALLBACKS, Watched
from server_app.failures import is_failure
from strategies import Callback, Decisions, RoundReport

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: How a run ended, or that its end is still to come.
Ending = Literal["complete", "failed", "stopped"]


class Noted(Row):
    """What ``trackers.json`` holds of one tracker.

    Attributes
    ----------
    id : str
        The tracker's name for the run.
    where : str
        Where the tracker keeps it.
    round : int
        The last round that it was told, and keeps; -1 for none.
    """

    id: str
    where: str
    round: int = -1


class Tracker(Callback, ABC):
    """Base of callbacks that tell a program which keeps and compares runs.

    What is told of a run: configuration, tags, the numbers of every round, and at the end the
    report's figures. A resumed run goes on under the same name, from the round after the last one
    told, and rounds from before it was tracked are told, too. Where a run went back, TensorBoard's
    rounds are replaced; the others cannot take back what they were told, and get a new run.

    A tracker that fails warns once and ends nothing. It is tried again at the end.

    Parameters
    ----------
    watched : Watched, str or Path
        The run, or a folder of one's own for what is written.
    tags : mapping, optional
        Further tags. A run has its method, data set, seed and the code's commit, and the sweep
        that the environment variable ``BMSFED_SWEEP`` names.
    config : mapping, optional
        Further entries of the configuration; nested ones get dotted names.

    Attributes
    ----------
    name : str
        As registered.
    needs : tuple of str
        The package that it needs, and what pip installs to have it.
    lasting : bool
        Whether it keeps what it was told at once, and not only when it is closed.

    Raises
    ------
    ValueError
        If that package is not installed.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, str]]
    lasting: ClassVar[bool] = True

    def __init__(
        self,
        watched: Watched | str | Path,
        *,
        tags: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if fault := package_fault(type(self)):
            raise ValueError(fault)
        self.folder = (watched.folder if isinstance(watched, Watched) else Path(watched)).absolute()
        self._more_tags, self._more_config = dict(tags or {}), dict(config or {})
        self._noted, self._is_open, self._warned = Noted(id="", where=""), False, False
        self._pending: list[tuple[int, dict[str, float]]] = []

    # --- what each tracker says ---------------------------------------------------------------

    @property
    @abstractmethod
    def where(self) -> str:
        """Where it keeps runs: a run is not looked for elsewhere."""

    @abstractmethod
    def open(self, run_id: str, first: int) -> str:
        """Begin a run, or go on with one.

        Parameters
        ----------
        run_id : str
            The run's id; "" begins a new one.
        first : int
            The first round that will be told; what is there of it and later ones is replaced.

        Returns
        -------
        str
            The run's id.
        """

    @abstractmethod
    def tell(self, server_round: int, values: Mapping[str, float]) -> None:
        """Write a round's numbers by name."""

    @abstractmethod
    def show(self, figures: Mapping[str, bytes], server_round: int) -> None:
        """Write figures, PNG by name, of the run up to a round."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """End the run."""

    # --- what is said -------------------------------------------------------------------------

    @cached_property
    def params(self) -> dict[str, Any]:
        """The configuration: plain values by dotted name."""
        file = self.folder / "config.yaml"
        return dict(flat((read_config(file) if file.exists() else {}) | self._more_config))

    @cached_property
    def tags(self) -> dict[str, str]:
        """Tags by name; what is not known is left out."""
        found: dict[str, Any] = {"sweep": os.environ.get("BMSFED_SWEEP")}
        if (file := self.folder / "run.json").exists():
            info = read_json(file, RunInfo)
            found |= {"method": info.method, "dataset": info.dataset, "seed": info.seed}
            found["commit"] = info.commit or info.source
        return {k: str(v) for k, v in {**found, **self._more_tags}.items() if v not in (None, "")}

    # --- hooks --------------------------------------------------------------------------------

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Begin, or go on, and tell what the tracker does not know of the rounds so far."""
        rows = _rounds(self.folder / "history.jsonl")
        last = rows[-1].round if rows else -1
        known = read_json(self._file, dict[str, Noted]) if self._file.exists() else {}
        there = known.get(self.name)
        went_on = there is not None and there.where == self.where and there.round <= last
        self._noted = there if there and went_on else Noted(id="", where=self.where)
        told = self._noted.round
        self._pending = [(row.round, values_of(row)) for row in rows if row.round > told]
        self._attempt(self._catch_up)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Tell the round's numbers."""
        self._pending.append((report.round, values_of(report)))
        if not self._warned:
            self._attempt(self._catch_up)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Tell what is missing, show the report's figures, and say how the run ended."""
        ending: Ending = "failed" if is_failure(error) else "stopped" if error else "complete"
        self._attempt(self._catch_up)
        if not self._is_open:
            return
        if ending == "complete":  # others may go on, and have more to show
            self._attempt(self._show)
        self._attempt(lambda: self._close(ending))

    def _catch_up(self) -> None:
        if not self._is_open:
            self.folder.mkdir(parents=True, exist_ok=True)
            run_id = self.open(self._noted.id, self._noted.round + 1)
            self._is_open = True
            self._note(run_id, self._noted.round)
        while self._pending:
            number, values = self._pending[0]
            self.tell(number, values)
            self._note(self._noted.id, number, keep=self.lasting)
            del self._pending[0]

    def _show(self) -> None:
        if figures := figures_of(self.folder):
            self.show(figures, self._noted.round)

    def _close(self, ending: Ending) -> None:
        self.close(ending)
        self._note(self._noted.id, self._noted.round)

    def _attempt(self, what: Callable[[], None]) -> None:
        """Do something that must end no federation."""
        try:
            what()
        except Exception as error:  # whatever a tracker raises
            if not self._warned:
                log.warning(
                    "tracker %s failed (%s): the run goes on without it; what it lacks is tried "
                    "again at the end, and by `bmsfed run --resume %s --track %s`",
                    *(self.name, str(error) or type(error).__name__, self.folder, self.name),
                )
            self._warned = True

    @property
    def _file(self) -> Path:
        return self.folder / "trackers.json"

    def _note(self, run_id: str, server_round: int, *, keep: bool = True) -> None:
        self._noted = Noted(id=run_id, where=self.where, round=server_round)
        if not keep:
            return
        known = read_json(self._file, dict[str, Noted]) if self._file.exists() else {}
        write_json(self._file, {**known, self.name: self._noted})


def with_trackers(config: ExperimentConfig, names: Iterable[str]) -> ExperimentConfig:
    """Return a configuration with trackers among its callbacks; settings that are there stay.

    Raises
    ------
    ConfigError
        If one is no tracker, or what it needs is not installed.
    """
    known = [name for name, made in CALLBACKS.usable().items() if _is_tracker(made)]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"track: unknown tracker '{name}'{nearest(name, known)} (known: {', '.join(known)})"
            )
    new: dict[str, Any] = {
        f"callbacks.{name}": {} for name in names if name not in config.callbacks
    }
    return change_config(config, new) if new else config


def _is_tracker(made: object) -> bool:
    return isinstance(made, type) and issubclass(made, Tracker)


def flat(values: Mapping[Any, Any], above: str = "", by: str = ".") -> dict[str, Any]:
    """Return nested mappings as one, by joined names; empty ones are kept as they are.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        below = isinstance(value, Mapping) and value
        found |= flat(value, f"{above}{key}{by}", by) if below else {f"{above}{key}": value}
    return found


def values_of(of: RoundRow | RoundReport) -> dict[str, float]:
    """Return a round's numbers by name; by modality, such as ``accuracy_by_modality/gray``."""
    if isinstance(of, RoundRow):
        ratios, failures = of.ratio, of.failures
    else:
        ratios, failures = of.ratios, {**of.failures, **of.refused}
    values = {
        **of.metrics,
        "ratio": ratios,
        "bytes_down": of.bytes_down,
        "bytes_up": of.bytes_up,
        "seconds": of.seconds,
        "clients": len(of.assignments),
        "failures": len(failures),
    }
    numbers = flat(values, by="/").items()
    return {
        k: float(v) for k, v in numbers if isinstance(v, int | float) and not isinstance(v, bool)
    }


def figures_of(folder: Path) -> dict[str, bytes]:
    """Draw the report's figures of a run folder: PNG by name; none of another folder."""
    if not _rounds(folder / "history.jsonl"):
        return {}
    from bmsfed_app.record.run import read_run
    from bmsfed_app.report.figures import draw
    from bmsfed_app.report.studies import group

    [study] = group([read_run(folder)])
    return draw(study)


def _rounds(history: Path) -> list[RoundRow]:
    rows = read_rows(history)[0] if history.exists() else []
    return [row for row in rows if isinstance(row, RoundRow)]
