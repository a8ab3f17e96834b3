"""A run folder, read: what was run, who took part, what each round brought."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from bmsfed_app.record.files import RunFolderError, read_config, read_json, read_rows
from bmsfed_app.record.rows import ClientRow, FailedRow, Member, RoundRow, RunInfo, RunSummary
from bmsfed_app.record.summary import points
from strategies import Metric

#: Tries of rounds that came to nothing whose reasons are noted.
_LISTED = 5


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes
    ----------
    path : Path
        The folder, as given.
    config : dict
        Contents of ``config.yaml``.
    info : RunInfo
        Contents of ``run.json``.
    clients : dict
        By client id; empty for a run that ended before its first round.
    rounds : list of RoundRow
        By number; round 0 is the untrained model.
    answers : list of ClientRow
        What each client did in each round, in the order of the history.
    failed : str
        Why the run ended as failed; empty where it did not.
    notes : list of str
        What a reader of the run must know.
    """

    path: Path
    config: dict[str, Any]
    info: RunInfo
    clients: dict[str, Member]
    rounds: list[RoundRow]
    answers: list[ClientRow]
    failed: str
    notes: list[str]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.info.method

    @property
    def dataset(self) -> str:
        """Name of the data set, for readers."""
        return self.info.dataset

    @property
    def seed(self) -> int:
        """Seed that every draw of the run followed from."""
        return self.info.seed

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names from the data set."""
        return tuple(self.info.modalities)

    @property
    def planned(self) -> int:
        """Rounds that the configuration asks for."""
        return int(self.config["rounds"])

    @property
    def complete(self) -> bool:
        """Whether the run reached its last round or stopped early, and did not fail."""
        last = self.rounds[-1]
        return (last.round >= self.planned or bool(last.ended)) and not self.failed

    @property
    def prototypes(self) -> str:
        """Whose class means the uni-modal numbers used: "train", "test" or "" where unknown."""
        trained = [r.metrics for r in self.rounds if r.round > 0]
        used = {m.get("prototypes") for m in trained if m.get("accuracy_by_modality")}
        return ", ".join(sorted(str(u) for u in used if u))

    @property
    def failures(self) -> list[tuple[int, str, str]]:
        """(round, client, reason) of every answer that was left out."""
        found = {(r.round, c): reason for r in self.rounds for c, reason in r.failures.items()}
        for row in self.answers:
            if row.status != "ok":
                found.setdefault((row.round, row.client), row.status)
        return [(number, client, reason) for (number, client), reason in sorted(found.items())]

    @property
    def left_out(self) -> tuple[int, int]:
        """How many answers were left out, those that never came too, of how many asked for."""
        return sum(row.status != "ok" for row in self.answers), len(self.answers)

    def values(self, name: str, modality: str | None = None) -> list[tuple[int, float]]:
        """Return (round, value) of a metric by its name, round 0 included; none if unknown."""
        metric = self.metric(name)
        return points(self.rounds, metric, modality) if metric is not None else []

    def metric(self, name: str) -> Metric | None:
        """Return a metric that the run declares."""
        return next((m for m in self.info.metrics if m.name == name), None)

    def megabytes_per_client(self) -> tuple[float, float] | None:
        """Return mean MiB (down, up) per client and round, over the clients that trained."""
        count = sum(len(r.assignments) for r in self.rounds)
        if not count:
            return None
        down = sum(r.bytes_down for r in self.rounds)
        up = sum(r.bytes_up for r in self.rounds)
        return down / count / 2**20, up / count / 2**20


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Parameters
    ----------
    folder : Path
        Holds ``config.yaml``, ``run.json``, ``history.jsonl`` and, from the first round on,
        ``clients.json``.

    Raises
    ------
    RunFolderError
        One sentence that names the file, and the line where there is one.
    """
    if not folder.is_dir():
        raise RunFolderError(
            f"no run folder '{folder}': give the folder that a run wrote to (--out)"
        )
    config, info = read_config(folder / "config.yaml"), read_json(folder / "run.json", RunInfo)
    rows, cut_off = read_rows(folder / "history.jsonl", info.metrics)
    rounds = {r.round: r for r in rows if isinstance(r, RoundRow)}
    if not rounds:
        raise RunFolderError(
            f"'{folder / 'history.jsonl'}' holds no round: report on the run once it has "
            "evaluated its first model, or start it again"
        )
    last, members = max(rounds), folder / "clients.json"
    ending = _ending(folder / "summary.json", last)
    notes = ["The last line of history.jsonl was cut off and is left out."] if cut_off else []
    if ending and ending.failed:
        notes.append(f"Ended as failed: {ending.failed}")
    elif ending and ending.paused:
        notes.append(f"Paused after round {last} of {config['rounds']}: {ending.paused}")
    elif rounds[last].ended:
        notes.append(f"Round {last} of {config['rounds']} was its last: {rounds[last].ended}.")
    elif last < config["rounds"]:
        ended = "ended by a callback" if ending and ending.complete else "going on, or interrupted"
        notes.append(f"Round {last} of {config['rounds']}: {ended}.")
    if failed := [r for r in rows if isinstance(r, FailedRow)]:
        which = ", ".join(str(n) for n in sorted({r.round for r in failed}))
        notes.append(f"{len(failed)} tries of rounds came to nothing (round {which}).")
        notes += [f"Round {r.round}, try {r.attempt + 1}: {r.reason}." for r in failed[:_LISTED]]
    return Run(
        path=folder,
        config=config,
        info=info,
        clients=read_json(members, dict[str, Member]) if last or members.exists() else {},
        rounds=[rounds[n] for n in sorted(rounds)],
        answers=[r for r in rows if isinstance(r, ClientRow)],
        failed=ending.failed if ending else "",
        notes=notes,
    )


def common_prefix(names: Iterable[str]) -> str:
    """Return what all names begin with, less digits: "client-" of client-08 and client-09."""
    names = sorted(names)
    pairs = zip(names[0], names[-1], strict=False) if names else ()
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return "" if shared in names else shared.rstrip("0123456789")


def _ending(file: Path, last: int) -> RunSummary | None:
    """How the run ended after its last round; None if it is going on, was killed or resumed."""
    found = read_json(file, RunSummary) if file.exists() else None
    return found if found is not None and found.rounds == last else None
