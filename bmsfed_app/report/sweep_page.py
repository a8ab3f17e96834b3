"""A sweep's report on disk: HTML, Markdown, LaTeX, CSV and figures."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bmsfed_app.report import ReportError, sweep_curves
from bmsfed_app.report.earlier_runs import Origin
from bmsfed_app.report.page import template
from bmsfed_app.report.statistics import mean_and_interval
from bmsfed_app.report.sweep_curves import WINDOW, curve_rows
from bmsfed_app.report.sweep_figures import draw_sweep
from bmsfed_app.report.sweep_results import STATISTICS, Column, Results
from bmsfed_app.report.sweep_tables import Table, tables

GENERATOR = "bmsfed report, of a sweep"

_CAPTIONS = {
    "curves": (
        "By round",
        "Mean over seeds of each method; the band reaches from the least to the most.",
    ),
    "settings": (
        "By setting",
        "Closing means; bars are 95 % intervals over seeds (Student t).",
    ),
    "balance": (
        "Balance of modalities",
        "Means over seeds. Above, the global imbalance ratio of the weak modality: 1 is balanced. "
        "Below, the share of the clients selected that train less than they hold, over "
        f"{WINDOW} rounds.",
    ),
}


def write_sweep_report(results: Results, out: Path, command: str) -> Path:
    """Write ``index.html``, ``table.{md,tex,csv}``, ``runs.csv``, ``curves.csv`` and figures.

    Parameters
    ----------
    results : Results
    out : Path
        Folder, made if need be. Files of an earlier report in it are replaced, but for figures by
        round where of most runs no numbers by round are at hand.
    command : str
        What runs the sweep, for readers.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ReportError
        If no run is complete, or ``out`` holds a page that is no report of a sweep.
    """
    if not results.origins:
        raise ReportError(
            f"no run of '{results.sweep.source}' at scale '{results.sweep.scale}' is complete: "
            f"run `{command}` first, or name its folder by --runs"
        )
    page = out / "index.html"
    if page.exists() and GENERATOR not in page.read_text(encoding="utf-8", errors="replace"):
        raise ReportError(f"'{page}' was not written by a report of a sweep: give another --out")
    found, earlier = tables(results), _earlier_pictures(results, out)
    pictures = draw_sweep(results) | earlier
    facts, notes = facts_of(results, command), _notes(results, bool(earlier))
    files = {
        "index.html": _html(results, facts, notes, found, pictures).encode(),
        "table.md": markdown(results, facts, notes, found, list(pictures)).encode(),
        "table.tex": "\n".join(latex(t) for t in found).encode(),
        "table.csv": _cells_csv(results).encode(),
        "runs.csv": _runs_csv(results).encode(),
        sweep_curves.NAME: _curves_csv(results).encode(),
        **{f"{name}.png": data for name, data in pictures.items()},
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise ReportError(
            f"cannot write the report to '{out}' ({error.strerror}): choose another folder"
        ) from None
    return page


def facts_of(results: Results, command: str) -> dict[str, str]:
    """Return what readers must know of a sweep's runs: how many, when, where, by which code."""
    origins = list(results.origins.values())
    seconds = sum(o.seconds for o in origins)
    seeds = sorted({r.seed for r in results.sweep.runs if r.key in results.origins})
    return {
        "command": command,
        "scale": results.sweep.scale,
        "seeds": ", ".join(map(str, seeds)),
        "runs": f"{len(origins)} of {len(results.sweep.runs)} complete",
        "rounds' time": f"{seconds / 60:,.0f} minutes in all",
        "commits": ", ".join(dict.fromkeys(o.commit[:12] or "unknown" for o in origins)),
        "hardware": "; ".join(dict.fromkeys(o.hardware for o in origins)),
        "precision": _counted(o.precision for o in origins),
    }


def _counted(values: Iterable[str]) -> str:
    """Write the values that there are; where they differ, how many there are of each."""
    found = Counter(values).most_common()
    return ", ".join(f"{value} ({n} runs)" if found[1:] else value for value, n in found)


def _earlier_pictures(results: Results, out: Path) -> dict[str, bytes]:
    """Return figures by round that an earlier report left, where they show more than there is."""
    if len(results.origins) <= 2 * len(results.curves):
        return {}
    files = {name: out / f"{name}.png" for name in ("curves", "balance")}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}


def _notes(results: Results, earlier_pictures: bool) -> list[str]:
    notes = []
    if results.missing:
        few = [run.label for run in results.missing[:5]]
        more = f" and {len(results.missing) - 5} more" if len(results.missing) > 5 else ""
        notes.append(
            f"{len(results.missing)} runs are not complete, and their cells lack them: "
            f"{'; '.join(few)}{more}."
        )
    if results.told:
        notes.append(
            f"Of {results.told} runs the numbers are from an earlier report's runs.csv, as their "
            "folders are not at hand."
        )
    if lacking := len(results.origins) - len(results.curves):
        figures = "are an earlier report's" if earlier_pictures else "lack them"
        notes.append(
            f"Of {lacking} runs there are no numbers by round: figures by round {figures}."
        )
    if len({o.source or o.commit for o in results.origins.values()}) > 1:
        notes.append("The runs are of different versions of the app.")
    data: dict[str, set[str]] = {}  # fingerprints by place
    for run in results.sweep.runs:
        if (origin := results.origins.get(run.key)) and origin.data:
            place = Column(run.dataset, run.partition, run.setting, "").place
            data.setdefault(place, set()).add(origin.data)
    notes += [
        f"The runs on {place} saw different data (fingerprints {', '.join(sorted(found))}): do not "
        "compare them."
        for place, found in data.items()
        if len(found) > 1
    ]
    return notes


def _html(
    results: Results,
    facts: dict[str, str],
    notes: list[str],
    found: Sequence[Table],
    pictures: dict[str, bytes],
) -> str:
    figures = [
        {
            "heading": _CAPTIONS[name][0],
            "caption": _CAPTIONS[name][1],
            "data": base64.b64encode(data).decode("ascii"),
        }
        for name, data in pictures.items()
    ]
    return template("sweep.html.j2").render(
        generator=GENERATOR,
        title=results.sweep.title,
        lead=f"{facts['runs'].replace(' complete', ' runs complete')}, {facts['scale']} scale.",
        facts=facts,
        notes=notes,
        tables=found,
        figures=figures,
    )


def markdown(
    results: Results,
    facts: dict[str, str],
    notes: Iterable[str],
    found: Iterable[Table],
    pictures: Iterable[str] = (),
) -> str:
    """Return the report as Markdown."""
    lines = [f"# {results.sweep.title}", ""]
    lines += [f"- {k}: " + (f"`{v}`" if k == "command" else v) for k, v in facts.items()]
    lines += ["", *notes]
    for table in found:
        lines += ["", f"## {table.title}", "", *markdown_table(table)]
        lines += ["", table.note] if table.note else []
    for name in pictures:
        lines += ["", f"![{_CAPTIONS[name][0]}]({name}.png)", "", _CAPTIONS[name][1]]
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """Return a table's lines in Markdown."""

    def _line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rows = [[f"`{row[0]}`", *row[1:]] for row in table.rows]
    return [_line(table.heads), "|" + "---|" * len(table.heads), *map(_line, rows)]


def latex(table: Table) -> str:
    """Return a table in LaTeX, for the package booktabs."""

    def _line(cells: Iterable[str]) -> str:
        return " & ".join(map(_tex, cells)) + r" \\"

    return "\n".join(
        [
            rf"% {_tex(table.title)}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
            r"\toprule",
            _line(table.heads),
            r"\midrule",
            *map(_line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


#: What LaTeX takes otherwise than it stands.
_MARKS = {m: "\\" + m for m in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
}


def _tex(text: str) -> str:
    return "".join(_MARKS.get(mark, mark) for mark in text)


def _cells_csv(results: Results) -> str:
    """Return a line for every cell and statistic, of all metrics."""
    heads = ["method", "dataset", "partition", "setting", "metric", "statistic"]
    rows: list[list[object]] = [[*heads, "mean", "half_width", "n", "paper"]]
    cells = ((m, c) for m in results.methods for c in results.all_columns)
    for method, column in (cell for cell in cells if cell in results.values):
        for statistic in STATISTICS:
            values = list(results.by_seed(method, column, statistic).values())
            number = results.paper.get((method, column), "")
            rows.append(
                [method, *column, statistic, *mean_and_interval(values), len(values), number]
            )
    return _csv(rows)


def _runs_csv(results: Results) -> str:
    """Return a line for every run of the sweep; another report can read it (earlier_runs)."""
    names = list(results.metrics)
    heads = ["method", "dataset", "partition", "setting", "seed", "folder", "complete"]
    heads += [f"{name}.{s}" for name in names for s in STATISTICS]
    rows: list[list[object]] = [[*heads, *Origin._fields]]
    for run in results.sweep.runs:
        origin, place = results.origins.get(run.key), (run.dataset, run.partition, run.setting)
        name = results.folders.get(run.key, run.name)
        row: list[object] = [run.method, *place, run.seed, name, origin is not None]
        for column in (Column(*place, name) for name in names):
            for statistic in STATISTICS:
                values = results.by_seed(run.method, column, statistic)
                row.append(values.get(run.seed, ""))
        if origin is not None:
            row += [round(origin.seconds, 1), *origin[1:]]
        rows.append(row)
    return _csv(rows)


def _curves_csv(results: Results) -> str:
    """Return a line for every run and round; another report can read it (earlier_runs)."""
    heads = ["method", "dataset", "partition", "setting", "seed"]
    runs = (
        (
            [run.method, run.dataset, run.partition, run.setting, run.seed],
            results.folders[run.key],
            results.origins[run.key].started,
            curves,
        )
        for run, curves in results.by_round()
    )
    return _csv(curve_rows(runs, heads))


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
