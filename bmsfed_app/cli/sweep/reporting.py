"""Reports of sweeps."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from bmsfed_app.report import ReportError
from bmsfed_app.report.sweep_page import leaderboard, write_sweep_report
from bmsfed_app.report.sweep_results import read_results
from bmsfed_app.sweeps import Sweep
from bmsfed_app.sweeps.sweep import default_root


def report_sweeps(
    sweeps: Sequence[Sweep],
    runs: Path | None,
    out: Path | None,
    board: Path | None,
    options: Sequence[str] = (),
    also: Sequence[Path] = (),
) -> Iterator[str]:
    """Write reports; yield lines that say where.

    Of several sweeps, those of which no run is complete are left out.

    Parameters
    ----------
    sweeps : sequence of Sweep
    runs : Path, optional
        Folder of run folders.
    out : Path, optional
        Folder of the report; of several sweeps, each has a folder of its name in it.
    board : Path, optional
        Markdown file for the leaderboard.
    options : sequence of str
        Of `bmsfed sweep`, besides the scale, that tell these runs from others.
    also : sequence of Path, optional
        See :func:`~bmsfed_app.report.sweep_results.read_results`.
    """
    root = (runs or default_root()).expanduser()
    found = [read_results(sweep, root, also) for sweep in sweeps]
    if any(results.origins for results in found):
        for results in found:
            if not results.origins:
                yield f"{results.sweep.source}: no run is complete, left out"
        found = [results for results in found if results.origins]
    commands: list[str] = []
    folders: list[Path] = []
    for results in found:
        name = Path(results.sweep.source).stem
        folder = out or Path("results") / name
        if out is not None and len(sweeps) > 1:
            folder = out / name
        sweep = results.sweep
        command = ["bmsfed", "sweep", sweep.source, "--scale", sweep.scale, *options]
        commands.append(shlex.join(command))
        folders.append(folder)
        yield str(write_sweep_report(results, folder, commands[-1]))
    if board is not None:
        links = [Path(os.path.relpath(f / "table.md", board.parent)).as_posix() for f in folders]
        try:
            board.write_text(leaderboard(found, commands, links), encoding="utf-8")
        except OSError as error:
            raise ReportError(f"cannot write '{board}' ({error.strerror})") from None
        yield str(board)
