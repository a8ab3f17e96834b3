"""``bmsfed sweep``: many runs, from one file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bmsfed_app.config import parse_pairs
from bmsfed_app.sweeps import Sweep, SweepError, SweepRun, load_sweep, sweep_names
from bmsfed_app.sweeps.sweep import default_root, parse_dirs

if TYPE_CHECKING:
    from bmsfed_app.cli.sweep.grid import Board

Scale = Annotated[str, typer.Option(help="One of the file's scales: smoke, desk, full.")]
On = Annotated[str, typer.Option(help="Only these data sets of the file, or configurations: a,b.")]
Runs = Annotated[
    Path | None, typer.Option(help="Folder of run folders; $BMSFED_HOME/sweeps by default.")
]
DataDirs = Annotated[
    list[str] | None,
    typer.Option("--data-dir", help="Folder with the data, or NAME=FOLDER; repeatable."),
]
Pairs = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, for all runs; repeatable.")
]


def wanted_sweep(
    source: str, scale: str, on: str, data_dir: Sequence[str] | None, set_: Sequence[str] | None
) -> Sweep:
    """Return the sweep that options ask for.

    Raises
    ------
    SweepError, ConfigError
        If there is none, or a run of it cannot be.
    """
    dirs = parse_dirs(data_dir or ())
    names = [name.strip() for name in on.split(",") if name.strip()]
    return load_sweep(source, scale, on=names, overrides=parse_pairs(set_ or []), data_dirs=dirs)


def sweep(
    file: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped one (table2).")
    ] = "",
    scale: Scale = "desk",
    on: On = "",
    runs: Runs = None,
    data_dir: DataDirs = None,
    set_: Pairs = None,
    cpus_per_run: Annotated[float, typer.Option(min=0.1, help="CPU cores of a run.")] = 1.0,
    gpus_per_run: Annotated[float, typer.Option(min=0, help="GPU share of a run.")] = 0.0,
    ray_address: Annotated[str, typer.Option(help="Ray cluster to run on.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, start none.")] = False,
) -> None:
    """Run what is missing of a sweep: methods x data sets x partitions x settings x seeds.

    As many runs at a time as cores and GPUs allow. Whatever ends it, the same command goes on.

    A run that fails does not stop the others and is tried again by the next call.
    """
    if not file:
        raise SweepError(f"name a sweep: a YAML file, or one of {', '.join(sweep_names())}")
    asked = wanted_sweep(file, scale, on, data_dir, set_)
    root = (runs or default_root()).expanduser().absolute()
    from bmsfed_app.cli.sweep.grid import Board

    board = Board(asked, root)
    if dry_run:
        _list(board)
        return
    os.environ.setdefault("BMSFED_SWEEP", Path(file).stem)  # a tag of trackers, in all workers
    needs = cpus_per_run, gpus_per_run
    raise typer.Exit(_work(board, needs, ray_address))


def _list(board: Board) -> None:
    from bmsfed_app.cli.sweep.grid import span

    for run in board.sweep.runs:
        seconds = board.estimate.of(run)
        about = "" if seconds is None else f", about {span(seconds)}"
        state = board.states[run.key] + (about if board.states[run.key] == "waiting" else "")
        needs = f" (needs {run.needs})" if run.needs else ""
        print(f"{run.label}: {state}{needs}  {run.folder(board.root)}")
    print(board.line(os.cpu_count() or 1))


def _work(board: Board, needs: tuple[float, float], address: str) -> int:
    """Run what is missing, and return the exit code."""
    from bmsfed_app.cli.sweep.runs import check_complete, run_all

    check_complete(board)
    if waiting := board.of("waiting"):
        stopped = run_all(board, waiting, needs, address, Console())
        if stopped:
            print("stopped: the same command goes on", file=sys.stderr)
            return 130
    lost = board.lost(board.sweep.runs)
    for text in lost:
        print(f"bmsfed: {text}", file=sys.stderr)
    done = len(board.of("complete"))
    print(f"{done} of {len(board.states)} runs complete, in {board.root}")
    return 1 if lost else 0


__all__ = ["SweepRun", "sweep", "wanted_sweep"]
