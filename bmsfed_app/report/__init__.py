"""Reports: one HTML page and a few figures from run folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bmsfed_app.report.figures import draw
from bmsfed_app.report.page import GENERATOR, render
from bmsfed_app.report.studies import Study, group, read_runs

__all__ = ["ReportError", "write_report"]

_PAGE = "report.html"


class ReportError(ValueError):
    """A report cannot be written; the message names the culprit and the remedy."""


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write ``report.html`` and its figures.

    The page holds the figures too; the PNG files beside it are for papers and slides. Files of
    an earlier report in the same folder are replaced, no others.

    Parameters
    ----------
    run_dirs : sequence of Path
        Run folders. Those that saw the same data are laid over each other.
    out : Path
        Folder to write to, made if need be.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunFolderError
        If a run folder cannot be used.
    ReportError
        If none was given, or ``out`` holds other files of these names.

    Examples
    --------
    >>> write_report([Path("runs/fedavg"), Path("runs/bmsfed")], Path("report"))  # doctest: +SKIP
    PosixPath('report/report.html')
    """
    out = Path(out)
    if not run_dirs:
        raise ReportError("no run folder was given: name at least one")
    _own_files(out)  # refuse before the work
    studies = group(read_runs(run_dirs))
    endings = _endings(studies)
    figures = [
        {kind: (f"{kind}{ending}.png", png) for kind, png in draw(study).items()}
        for study, ending in zip(studies, endings, strict=True)
    ]
    files = {name: png for found in figures for name, png in found.values()}
    page = render(studies, figures).encode()
    try:
        _write(out, {_PAGE: page, **files})
    except OSError as error:
        reason = error.strerror or error
        raise ReportError(
            f"cannot write the report to '{out}' ({reason}): choose another folder"
        ) from None
    return out / _PAGE


def _endings(studies: Sequence[Study]) -> list[str]:
    """File names carry the titles where there are several."""
    if len(studies) == 1:
        return [""]
    endings: list[str] = []
    for number, study in enumerate(studies, 1):
        ending = "-" + (re.sub(r"[^a-z0-9]+", "-", study.title.lower()).strip("-") or str(number))
        endings.append(f"{ending}-{number}" if ending in endings else ending)
    return endings


def _own_files(out: Path) -> set[str]:
    """Return the names of the files in ``out`` that an earlier report wrote."""
    if out.exists() and not out.is_dir():
        raise ReportError(f"'{out}' is a file: give a folder for the report")
    page = out / _PAGE
    if not page.exists():
        return set()
    try:
        start = page.read_bytes()[:4096].decode("utf-8", "replace")
    except OSError as error:
        raise ReportError(
            f"cannot read '{page}' ({error.strerror}): choose another folder"
        ) from None
    if f'<meta name="generator" content="{GENERATOR}">' not in start:
        raise ReportError(f"'{page}' was not written by a report: move it, or give another folder")
    listed = re.search(r'<meta name="figures" content="([a-z0-9. -]*)">', start)
    names = listed.group(1).split() if listed else []
    return {_PAGE, *(n for n in names if re.fullmatch(r"[a-z0-9-]+\.png", n))}


def _write(out: Path, files: dict[str, bytes]) -> None:
    own = _own_files(out)
    for name in files:
        if name not in own and (out / name).exists():
            raise ReportError(
                f"'{out / name}' was not written by a report: move it, or give another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    for name in own - set(files):
        (out / name).unlink(missing_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
