"""The tables of a sweep's report, as rows of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bmsfed_app.record.summary import LAST_ROUNDS
from bmsfed_app.report.statistics import holm, mean_and_interval, mean_ranks, paired
from bmsfed_app.report.sweep_results import STATISTICS, Column, Results

#: What the statistics are called.
TITLES = {
    "mean_last": f"mean of the evaluations among the last {LAST_ROUNDS} rounds",
    "last": "after the last round",
}


@dataclass
class Table:
    """A table: a title, column heads, rows of as many texts, and what a reader must know.

    Rows of which nothing is known are left out.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""

    def __post_init__(self) -> None:
        self.rows = [row for row in self.rows if any(row[1:])]


def tables(results: Results) -> list[Table]:
    """Return all tables of a sweep; those that would be empty are left out."""
    found = [_values(results, statistic) for statistic in STATISTICS]
    found += [t for base in results.sweep.baselines if (t := _differences(results, base))]
    return [*found, *_papers(results)]


def place_label(results: Results, column: Column) -> str:
    """Return a column's head: its place, and its metric where there are several."""
    several = len({c.metric for c in results.columns}) > 1
    metric = results.label(column.metric)
    return ": ".join(p for p in (column.place, metric if several else "") if p)


def interval(values: Sequence[float], seeds: int, digits: int = 1) -> str:
    """Write a mean and its interval: "61.2 ± 2.1", with n where it is not of all seeds."""
    if not values:
        return ""
    middle, half = mean_and_interval(values)
    text = f"{middle:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
    return text if len(values) == seeds else f"{text} (n = {len(values)})"


def main_columns(results: Results) -> list[Column]:
    """Return the columns that tests and ranks are of: those of the first metric."""
    return [c for c in results.columns if c.metric.partition(".")[0] == results.sweep.metrics[0]]


def ranks(results: Results) -> dict[str, float]:
    """Return mean ranks over the columns of the first metric, by closing means over seeds."""
    columns = main_columns(results)
    if not columns:
        return {}
    return mean_ranks({m: [results.merit(m, c) for c in columns] for m in results.methods})


def _values(results: Results, statistic: str) -> Table:
    seeds = len({r.seed for r in results.sweep.runs})
    columns, known = results.columns, results.paper
    theirs = [c for c in columns if any((m, c) in known for m in results.methods)]
    ranked = ranks(results) if statistic == STATISTICS[0] and len(main_columns(results)) > 1 else {}
    heads, rows = ["method"], []
    for column in columns:
        heads += [place_label(results, column), *["paper"] * (column in theirs)]
    heads += ["mean rank"] * bool(ranked)
    for method in results.methods:
        row = [method]
        for column in columns:
            values = list(results.by_seed(method, column, statistic).values())
            row.append(interval(values, seeds, results.digits(column)))
            if column in theirs:
                number = known.get((method, column))
                row.append("" if number is None else f"{number:.1f}")
        if ranked:
            row.append(f"{ranked[method]:.1f}" if method in ranked else "")
        rows.append(row)
    names = list(dict.fromkeys(results.label(m.partition(".")[0]) for m in results.sweep.metrics))
    what = "by modality" if names == ["accuracy_by_modality"] else ""
    first = next((results.metrics[c.metric] for c in columns), None)
    unit = f" ({first.unit})" if first is not None and first.unit else ""
    subject = _subject(results) + (f" {what}" if what else "")
    note = "±: half width of the 95 % interval over seeds (Student t)." if seeds > 1 else ""
    if ranked:
        note += " Mean rank: over the columns, of methods that were run in all of them."
    return Table(f"{subject}{unit}, {TITLES[statistic]}", heads, rows, note.strip())


def _subject(results: Results) -> str:
    named = [results.metrics[c.metric].axis for c in results.columns]
    text = ", ".join(dict.fromkeys(named)) or results.sweep.metrics[0]
    return text[:1].upper() + text[1:]


def _differences(results: Results, base: str) -> Table | None:
    """Compare every method with one, seed by seed."""
    columns, statistic = main_columns(results), STATISTICS[0]
    others = [m for m in results.methods if m != base]
    heads = ["method"]
    cells: dict[str, list[str]] = {m: [m] for m in others}
    most, any_found = 0, False
    for column in columns:
        heads += [place_label(results, column), "p", "p (Holm)"]
        theirs = results.by_seed(base, column, statistic)
        found = {
            m: d
            for m in others
            if (d := paired(results.by_seed(m, column, statistic), theirs)) is not None
        }
        # One seed is no test, nor are differences that are not finite.
        ps = {m: d.p for m, d in found.items() if d.n > 1 and not math.isnan(d.p)}
        adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
        for method in others:
            if (d := found.get(method)) is None:
                cells[method] += ["", "", ""]
                continue
            any_found, most = True, max(most, d.n)
            digits = results.digits(column)
            half = "" if math.isnan(d.half) else f" ± {d.half:.{digits}f}"
            tested = [f"{d.p:.3f}", f"{adjusted[method]:.3f}"] if method in ps else ["", ""]
            less = f"{d.mean:+.{digits}f}".replace("+nan", "nan")
            cells[method] += [f"{less}{half}", *tested]
    if not any_found:
        return None
    points = " in points" if results.metrics[columns[0].metric].unit == "%" else ""
    note = (
        f"Differences to {base}{points}, {TITLES[statistic]}, paired by seed; p of the exact "
        f"two-sided sign-flip test, and adjusted by Holm's method over the methods of a column. "
        f"With {most} seeds no p can be below {2.0 ** (1 - most):.3f}."
        if most > 1
        else f"Differences to {base}{points}, {TITLES[statistic]}, of one seed: no test."
    )
    return Table(f"Difference to {base}", heads, list(cells.values()), note)


def _papers(results: Results) -> list[Table]:
    """Show the paper's own numbers that stand beside none of ours."""
    shown = set(results.columns)
    left = {k: v for k, v in results.paper.items() if k[1] not in shown}
    if not left:
        return []
    columns = list(dict.fromkeys(c for _, c in left))
    methods = list(dict.fromkeys(m for m, _ in left))
    heads = ["method"]
    for column in columns:
        metric = column.metric.partition(".")[2]
        heads.append(": ".join(p for p in (column.place, metric) if p))
    rows = [
        [m, *("" if (m, c) not in left else f"{left[m, c]:.1f}" for c in columns)] for m in methods
    ]
    return [Table("The paper's own numbers, of what was not run here (%)", heads, rows)]
