"""Several sweeps' closing means on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bmsfed_app.report.sweep_page import facts_of, markdown_table
from bmsfed_app.report.sweep_results import STATISTICS, Column, Results
from bmsfed_app.report.sweep_tables import Table, interval, main_columns, ranks


@dataclass
class _Place:
    """A column of the leaderboard: cells and merits by method, and the runs that are of it."""

    cells: dict[str, str] = field(default_factory=dict)
    merits: dict[str, float] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    def take(self, results: Results, column: Column) -> None:
        """Take a sweep's methods that are not here yet, where its column is the same place."""
        runs = results.sweep.runs
        keys = {r.key for r in runs if (r.dataset, r.partition, r.setting) == column[:3]}
        if self.keys and self.keys.isdisjoint(keys):
            return
        self.keys |= keys
        seeds = len({r.seed for r in runs})
        for method in results.methods:
            merit = results.merit(method, column)
            if merit is None or method in self.cells:
                continue
            values = list(results.by_seed(method, column, STATISTICS[0]).values())
            self.cells[method] = interval(values, seeds, results.digits(column))
            self.merits[method] = merit

    @property
    def best_first(self) -> list[str]:
        """Methods by merit."""
        return sorted(self.merits, key=self.merits.__getitem__, reverse=True)

    def shown(self) -> dict[str, str]:
        """Return the cells by method, the best in bold."""
        best = max(self.merits.values())
        return {m: f"**{c}**" if self.merits[m] == best else c for m, c in self.cells.items()}


def leaderboard(
    all_results: Sequence[Results], commands: Sequence[str], tables: Sequence[str]
) -> str:
    """Return several sweeps' closing means as one page, best first, with each sweep's mean ranks.

    Methods are in the order of the first column, those without a cell there of the next, and so
    on; the best of a column is in bold.

    Parameters
    ----------
    all_results : sequence of Results
        A column is that of the first sweep, and of others that share a run with it; what has the
        same name and other runs is left to its own page. So are settings, where there are columns
        without, and sweeps whose first metric is not the first one's.
    commands : sequence of str
        What runs each of them.
    tables : sequence of str
        Where each one's ``table.md`` is, for a link.
    """
    places: dict[str, _Place] = {}
    ranked = {}
    metric = all_results[0].sweep.metrics[0]
    alike = [results for results in all_results if results.sweep.metrics[0] == metric]
    plain = any(not c.setting for results in alike for c in main_columns(results))
    for results in alike:
        for column in main_columns(results):
            if not (column.setting and plain):
                one = f": {results.label(column.metric)}" if "." in column.metric else ""
                places.setdefault(column.place + one, _Place()).take(results, column)
    for results in all_results:
        if len(found := ranks(results)) > 1:
            ranked[results.sweep.title] = found
    methods = list(dict.fromkeys(m for place in places.values() for m in place.best_first))
    shown = [place.shown() for place in places.values()]
    rows = [[m, *(cells.get(m, "") for cells in shown)] for m in methods]
    heads = ["method", *places]
    lines = ["# Leaderboard", ""]
    lines.append(
        f"Closing means (the evaluations among the last ten rounds) of the metric {metric}, with "
        "the half width of the 95 % interval over seeds, and n where not all seeds were run. "
        "Bold: the best mean of a column, whatever its interval. Best first by the first column. "
        "Cells that were not run are empty."
    )
    lines += ["", *markdown_table(Table("", heads, rows)), ""]
    for results, command, file in zip(all_results, commands, tables, strict=True):
        facts = facts_of(results, command)
        told = "; ".join(f"{k} {v}" for k, v in facts.items() if k not in ("command", "scale"))
        lines.append(f"- [{results.sweep.title}]({file}): `{command}`; {told}")
    if ranked:
        told = "Mean ranks over the columns of a page, of the methods that have all of them:"
        lines += ["", told, ""]
    for title, found in ranked.items():
        best = sorted(found.items(), key=lambda one: one[1])
        lines.append(f"- {title}: " + ", ".join(f"`{m}` {r:.1f}" for m, r in best))
    return "\n".join(lines) + "\n"
