"""What a person sees of a sweep: what is done, running, failed, and the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bmsfed_app.cli.sweep.work import Outcome
from bmsfed_app.record.files import RunFolderError, is_complete, read_json
from bmsfed_app.record.rows import RunInfo
from bmsfed_app.sweeps import Sweep, SweepRun
from bmsfed_app.sweeps.state import Estimate, rounds_done, seconds_of

#: More columns than these do not fit a terminal: then methods are the columns' heads.
_COLUMNS = 6


class Board:
    """How the runs of a sweep stand.

    Parameters
    ----------
    sweep : Sweep
    root : Path
        Folder of run folders.

    Raises
    ------
    RunFolderError
        If a run's folder cannot be read.
    """

    def __init__(self, sweep: Sweep, root: Path) -> None:
        self.sweep, self.root = sweep, root
        self.states: dict[str, str] = {r.key: "waiting" for r in sweep.runs}
        self.reasons: dict[str, str] = {}
        self.estimate = Estimate()
        for run in sweep.runs:
            if is_complete(run.folder(root)):
                self.end(run, Outcome("complete"))

    def end(self, run: SweepRun, outcome: Outcome) -> None:
        """Take note of a run that ended."""
        self.states[run.key] = outcome.state
        if outcome.state == "complete":
            self.estimate.add(run, seconds_of(run.folder(self.root)))
        else:
            self.reasons[run.key] = outcome.why

    def of(self, *states: str) -> list[SweepRun]:
        """Return the runs that are in one of these states."""
        return [r for r in self.sweep.runs if self.states[r.key] in states]

    def start(self, runs: Iterable[SweepRun]) -> None:
        """Take note of runs that are under way."""
        for run in runs:
            self.states[run.key] = "running"

    def left(self, at_once: int) -> str:
        """Say how long the rest will take."""
        running = self.of("running")
        rounds = {r.key: rounds_done(r.folder(self.root)) / r.config.rounds for r in running}
        seconds = self.estimate.left([*running, *self.of("waiting")], at_once, rounds)
        return "time left not known yet" if seconds is None else f"about {span(seconds)} left"

    def line(self, at_once: int) -> str:
        """Say in one line how it stands."""
        counts = Counter(self.states.values())
        said = [f"{counts['complete']} of {len(self.states)} runs complete"]
        said += [f"{counts[s]} {s}" for s in ("running", "failed", "elsewhere") if counts[s]]
        return f"{', '.join(said)}; {self.left(at_once)}"

    def grid(self) -> Table:
        """Return a row per method and a column per data set, partition and setting, or the same
        turned round."""
        cells: dict[tuple[str, str], list[SweepRun]] = {}
        for run in self.sweep.runs:
            where = ", ".join(p for p in (run.dataset, run.partition, run.setting) if p)
            cells.setdefault((run.method, where), []).append(run)
        methods, places = (list(dict.fromkeys(k[i] for k in cells)) for i in (0, 1))
        turned = len(places) > max(_COLUMNS, len(methods))
        rows, columns = (places, methods) if turned else (methods, places)
        table = Table("", *columns, title=f"{self.sweep.title} ({self.sweep.scale})")
        for row in rows:
            keys = [(c, row) if turned else (row, c) for c in columns]
            table.add_row(row, *[self._cell(cells.get(key, [])) for key in keys])
        return table

    def _cell(self, runs: Sequence[SweepRun]) -> str:
        if not runs:
            return ""
        states = Counter(self.states[r.key] for r in runs)
        text = f"{states['complete']}/{len(runs)}"
        for run in runs:
            if self.states[run.key] == "running":
                done = rounds_done(run.folder(self.root))
                text += f" [cyan]round {done}/{run.config.rounds}[/cyan]"
        return text + (f" [red]{states['failed']} failed[/red]" if states["failed"] else "")

    def result(self, run: SweepRun) -> str:
        """Say what a run came to."""
        if self.states[run.key] != "complete":
            return f"{self.states[run.key]}: {self.reasons[run.key]}"
        return f"complete{self._last(run)}, {span(seconds_of(run.folder(self.root)))}"

    def lost(self, runs: Iterable[SweepRun]) -> list[str]:
        """Say what those of some runs came to that have no end, once for all with one reason."""
        reasons: dict[str, list[SweepRun]] = {}
        for run in runs:
            if self.states[run.key] in ("failed", "elsewhere", "stopped"):
                reasons.setdefault(self.result(run), []).append(run)
        return [
            f"{which[0].label}{f' and {len(which) - 1} more' if which[1:] else ''}: {reason}"
            for reason, which in reasons.items()
        ]

    def _last(self, run: SweepRun) -> str:
        """Say what its last evaluation came to, by the sweep's first metric."""
        folder, name = run.folder(self.root), self.sweep.metrics[0]
        try:
            info = read_json(folder / "run.json", RunInfo)
            found = read_json(folder / "summary.json", dict).get(name)
        except RunFolderError:
            return ""
        metric = next((m for m in info.metrics if m.name == name and not m.by_modality), None)
        if metric is None or not isinstance(found, dict):
            return ""
        return f", {name} {metric.text(found['last'])} {metric.unit}".rstrip()


class Watch:
    """Shows a board: as a grid that moves on a terminal, a line for each run elsewhere."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board, self.console = board, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Watch:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, at_once: int) -> None:
        """Show how it stands now."""
        if self._live is not None:
            line = Text(self.board.line(at_once))
            self._live.update(Group(self.board.grid(), line), refresh=True)

    def ended(self, run: SweepRun, at_once: int) -> None:
        """Say how a run ended."""
        text = f"{run.label}: {self.board.result(run)}"
        if self._live is None:
            text += f" ({self.board.line(at_once)})"
        self._say(text)

    def failed(self, runs: Iterable[SweepRun]) -> None:
        """Say which of some runs failed, and why."""
        for text in self.board.lost(runs):
            self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def span(seconds: float) -> str:
    """Return a duration in words: "42 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
