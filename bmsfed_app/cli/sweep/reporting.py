"""Reports of sweeps."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from bmsfed_app.record.files import RunFolderError
from bmsfed_app.report import ReportError
from bmsfed_app.report.earlier_runs import NAME, read_earlier
from bmsfed_app.report.leaderboard import leaderboard
from bmsfed_app.report.sweep_page import write_sweep_report
from bmsfed_app.report.sweep_results import Results, read_results
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

    Of several sweeps, those of which no run is complete are left out. What an earlier report in a
    folder tells of runs that this one lacks is not written over.

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

    Raises
    ------
    ReportError
        If a folder or file cannot be written, or a folder's report tells of other runs.
    RunFolderError
        See :func:`~bmsfed_app.report.sweep_results.read_results`.
    """
    root = (runs or default_root()).expanduser()
    found = [read_results(sweep, root, also) for sweep in sweeps]
    if any(results.origins for results in found):
        for results in found:
            if not results.origins:
                yield f"{results.sweep.source}: no run is complete, left out"
        found = [results for results in found if results.origins]
    folders = [_folder(results.sweep, out, len(sweeps) > 1) for results in found]
    for results, folder in zip(found, folders, strict=True):
        _check_kept(folder, results)
    commands: list[str] = []
    for results, folder in zip(found, folders, strict=True):
        sweep = results.sweep
        command = ["bmsfed", "sweep", sweep.source, "--scale", sweep.scale, *options]
        commands.append(shlex.join(command))
        yield str(write_sweep_report(results, folder, commands[-1]))
    if board is not None:
        links = [Path(os.path.relpath(f / "table.md", board.parent)).as_posix() for f in folders]
        try:
            board.write_text(leaderboard(found, commands, links), encoding="utf-8")
        except OSError as error:
            raise ReportError(f"cannot write '{board}' ({error.strerror})") from None
        yield str(board)


def _folder(sweep: Sweep, out: Path | None, several: bool) -> Path:
    name = Path(sweep.source).stem
    if out is None:
        return Path("results") / name
    return out / name if several else out


def _check_kept(folder: Path, results: Results) -> None:
    """Refuse a folder whose report tells of complete runs that these results have not."""
    file = folder / NAME
    if not file.is_file():
        return
    try:
        known = read_earlier([file])
    except RunFolderError:
        raise ReportError(
            f"'{file}' is not what a report of a sweep writes: name another folder by --out"
        ) from None
    here = {name for r in results.sweep.runs if r.key in results.origins for name in r.names}
    if lost := [name for name in known if name not in here]:
        raise ReportError(
            f"'{file}' tells of {len(lost)} complete runs that this report would lack, such as "
            f"'{lost[0]}': count them in by --also {folder}, where they are this sweep's, or write "
            "elsewhere by --out; to do without them, remove the file"
        )
