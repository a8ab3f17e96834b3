"""Live progress on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.datasets import Account
from strategies import Callback, Decisions, RoundReport


class ProgressCallback(Callback):
    """A bar with rounds, clients done in this round, accuracy and time left.

    Parameters
    ----------
    console : rich.console.Console
        A terminal; lines printed through it appear above the bar.
    """

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[clients]}"),
            TextColumn("{task.fields[accuracy]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=1, clients="starting", accuracy="")

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Show the bar."""
        self.progress.start()
        self.progress.update(self.task, total=num_rounds, completed=strategy.state.round)

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Show the phase."""
        self._clients(phase, 0, total)

    def on_reply(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Show the clients done."""
        self._clients(phase, done, total)

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        """Show the round's accuracy."""
        accuracy = report.metrics.get("accuracy")
        self.progress.update(self.task, completed=report.round)
        if accuracy is not None:
            self.progress.update(self.task, accuracy=f"accuracy {100 * accuracy:.1f}%")

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Take the bar away."""
        self.progress.stop()

    def _clients(self, phase: str, done: int, total: int) -> None:
        self.progress.update(self.task, clients=f"{phase}: {done}/{total} clients")


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of (done, total); nothing before the first report, or where there is no terminal.

    Parameters
    ----------
    what : str
        What is being done, e.g. "decoding".
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: list[TaskID] = []

        def _report(done: int, total: int) -> None:
            if not tasks:
                tasks.append(progress.add_task("", total=total))
            progress.update(tasks[0], completed=done)

        yield _report


def prepare_if_needed(config: ExperimentConfig, workers: int = 0) -> Account:
    """Look at an experiment's data, and decode it under a bar if it changed.

    Raises
    ------
    DataError
        If it cannot be used.
    """
    with counting_bar("decoding") as progress:
        return config.check_data(progress, workers)


def say(account: Account) -> None:
    """Print what is used of a data set and what is not."""
    for line in account.lines():
        print(f"  {line}")
