"""The report's page: one HTML file with everything inside it, from ``page.html.j2``."""

from __future__ import annotations

import base64
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bmsfed_app.partitions import PARTITIONS, read_partition
from bmsfed_app.record.origin import commit, source_hash
from bmsfed_app.record.run import Run
from bmsfed_app.record.summary import LAST_ROUNDS, summary
from bmsfed_app.report.figures import MAX_BARS, bin_width, figure_name, partitions
from bmsfed_app.report.studies import Study, mean_and_interval
from strategies import Metric

#: What a page of this module carries, so that the next report knows that it may replace it.
GENERATOR = "bmsfed report"

#: Failures that are listed; the rest is counted.
MAX_FAILURES = 200

_NONE = "–"


def render(studies: Sequence[Study], figures: Sequence[Mapping[str, tuple[str, bytes]]]) -> str:
    """Write the page.

    Parameters
    ----------
    studies : sequence of Study
        One section each.
    figures : sequence of mapping
        For each study, the file name and the PNG of every figure by its kind.

    Returns
    -------
    str
        HTML that needs nothing but itself.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        title=f"Federated runs on {_and([s.dataset for s in studies])}",
        lead=_lead(studies),
        sections=[_section(s, f) for s, f in zip(studies, figures, strict=True)],
        files=" ".join(name for found in figures for name, _ in found.values()),
        generator=GENERATOR,
        last_rounds=LAST_ROUNDS,
        max_failures=MAX_FAILURES,
    )


def _lead(studies: Sequence[Study]) -> str:
    runs = [run for study in studies for _, run in study.runs()]
    methods = list(dict.fromkeys(run.method for run in runs))
    seeds = sorted({run.seed for run in runs})
    return (
        f"{_count(len(runs), 'run')} of {_and(methods)}, "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {_and([str(s) for s in seeds])}. Accuracies are "
        "on the test split, in percent."
    )


def _section(study: Study, figures: Mapping[str, tuple[str, bytes]]) -> dict[str, Any]:
    return {
        "dataset": study.dataset,
        "cards": _cards(study),
        "headings": [metric.label(modality) for metric, modality in study.columns],
        "rows": _rows(study),
        "legend": _legend(study),
        "figures": _figures(study, figures),
        "failures": [(s.run_label(run), *f) for s, run in study.runs() for f in run.failures],
    }


# --- what was run -------------------------------------------------------------------------------

#: A heading, facts by name, and what a reader must know besides.
_Card = tuple[str, dict[str, str], Sequence[str]]


def _cards(study: Study) -> list[_Card]:
    """One card for what all runs have in common, then one for each run."""
    runs = list(study.runs())
    facts = [_facts(run) for _, run in runs]
    shared = {k: v for k, v in facts[0].items() if all(f[k] == v for f in facts)}
    if len(runs) == 1:
        return [(runs[0][0].run_label(runs[0][1]), shared, runs[0][1].notes)]
    cards: list[_Card] = [("every run", shared, ())]
    for (series, run), own in zip(runs, facts, strict=True):
        differing = {k: v for k, v in own.items() if k not in shared}
        cards.append((series.run_label(run), differing, run.notes))
    return cards


def _facts(run: Run) -> dict[str, str]:
    """What a reader needs to know to run it again, by name."""
    info = run.info
    here = commit() if info.source == source_hash() else None  # a bundle's, in its checkout
    return {
        "method": run.method,
        "data set": run.dataset,
        "modalities": ", ".join(run.modalities),
        "seed": str(run.seed),
        "rounds": f"{run.rounds[-1].round} of {run.planned}",
        "clients": _clients(run),
        "partition": _partition(run),
        "commit": info.commit or here or "unknown",
        "source": info.source + (f" ({info.bundle})" if info.bundle else "") or "unknown",
        "command": info.command,
        "hardware": info.hardware,
        "started": info.started.replace("T", " "),
        "versions": ", ".join(f"{n} {v}" for n, v in info.versions.items()) or "unknown",
        "folder": str(run.path),
    }


def _clients(run: Run) -> str:
    """Say how many clients there are, what they hold and how many train per round."""
    held = Counter(tuple(client.modalities) for client in run.clients.values())
    text = str(len(run.clients) or run.config.get("clients") or "unknown")
    if len(held) > 1:
        parts = [f"{number} with {' + '.join(m)}" for m, number in held.items()]
        text += f" ({'; '.join(parts)})"
    share = run.config.get("per_round")
    if isinstance(share, float) and share < 1:
        return f"{text}, {100 * share:g} % per round"
    return text if share is None else f"{text}, {share} per round"


def _partition(run: Run) -> str:
    name = str(run.config.get("partition", "unknown"))
    # A scheme of another package need not be installed where the report is made.
    return read_partition(run.config).describe() if name in PARTITIONS else name


# --- results ------------------------------------------------------------------------------------

#: Numbers of a run, by column: None where the run has none.
_Numbers = list[float | None]


def _rows(study: Study) -> list[dict[str, Any]]:
    """The table's rows: every run, and the mean of a series."""
    rows = []
    for series in study.series:
        for run in series.runs:
            last = run.rounds[-1].round
            rounds = f"{last}" if run.complete else f"{last} of {run.planned}"
            rows.append(_row("run", series.run_label(run), rounds, [run], study))
        if len(runs := series.comparable()) > 1:
            label = f"{series.label}, mean of {len(runs)} seeds"
            rows.append(_row("mean", label, str(runs[0].planned), runs, study))
    return rows


def _row(kind: str, label: str, rounds: str, runs: Sequence[Run], study: Study) -> dict[str, Any]:
    cells = []
    for metric, modality in study.columns:
        numbers = [_three(run, metric, modality) for run in runs]
        cells += [_cell(values, metric) for values in zip(*numbers, strict=True)]
    used = dict.fromkeys(run.prototypes for run in runs if run.prototypes)
    return {
        "kind": kind,
        "label": label,
        "rounds": rounds,
        "cells": cells,
        "prototypes": ", ".join(used) or _NONE,
        "costs": [_number(c) for c in zip(*map(_costs, runs), strict=True)],
    }


def _three(run: Run, metric: Metric, modality: str | None) -> _Numbers:
    """Last, best and closing mean."""
    found = summary(run.rounds, metric, modality)
    return [found.last, found.best, found.mean_last] if found else [None] * 3


def _costs(run: Run) -> _Numbers:
    """MiB down and up per client and round, minutes in all."""
    traffic: _Numbers = list(run.megabytes_per_client() or (None, None))
    return [*traffic, sum(r.seconds for r in run.rounds) / 60]


def _cell(values: Sequence[float | None], metric: Metric) -> tuple[str, str]:
    """Return a value, or the mean of several and half the width of its interval."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return _NONE, ""
    if len(known) == 1:
        return metric.text(known[0]), ""
    mean, half = mean_and_interval(known)
    return metric.text(mean), metric.text(half)


def _number(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):,.2f}" if known and len(known) == len(values) else _NONE


def _legend(study: Study) -> str:
    about = dict.fromkeys(metric.about for metric, _ in study.columns if metric.about)
    parts = [
        *about,
        f"“mean of {LAST_ROUNDS}”: over the last {LAST_ROUNDS} rounds with an evaluation; “best”: "
        "each column's own; the untrained model (round 0) does not count.",
        f"MiB per client and round: {_TRAFFIC}, over the number of clients selected, summed over "
        "rounds.",
    ]
    if any(len(series.comparable()) > 1 for series in study.series):
        parts.append("±: half width of the 95 % interval over seeds (Student t).")
    if left := sum(len(s.runs) - len(s.comparable()) for s in study.series if len(s.runs) > 1):
        parts.append(
            f"Means over seeds leave out {_count(left, 'run')} that did not reach the last round, "
            "or that repeat a seed."
        )
    if len({run.info.source or run.info.commit for _, run in study.runs()}) > 1:
        parts.append("The runs are of different versions of the app.")
    return " ".join(parts)


# --- figures ------------------------------------------------------------------------------------

#: What the history counts.
_TRAFFIC = "the messages of training and measuring, without those of enrolment"


def _figures(study: Study, drawn: Mapping[str, tuple[str, bytes]]) -> list[dict[str, Any]]:
    found = []
    for axis, columns in study.axes():
        about = " ".join(dict.fromkeys(metric.about for metric, _ in columns if metric.about))
        caption = (about or "After each round.") + _styles(study)
        heading = f"{axis[:1].upper()}{axis[1:]} by round"
        found.append(_figure(study, heading, caption, drawn[figure_name(axis)]))
    for kind, (heading, explain, missing) in _OTHERS.items():
        if kind in drawn:
            found.append(_figure(study, heading, explain(study), drawn[kind]))
        else:
            found.append({"heading": heading, "data": "", "missing": missing})
    return found


def _figure(study: Study, heading: str, caption: str, picture: tuple[str, bytes]) -> dict[str, Any]:
    _, png = picture
    width, height = struct.unpack(">II", png[16:24])
    runs = _and([series.run_label(run) for series, run in study.runs()], "; ")
    return {
        "heading": heading,
        "alt": f"{heading}: {runs}",
        "width": width,
        "height": height,
        "data": base64.b64encode(png).decode("ascii"),
        "caption": caption,
    }


def _about_ratio(study: Study) -> str:
    return (
        "How far a modality lags behind the others, averaged over clients by their samples: above "
        f"1 (the line) it is the weaker one, and the largest ratio names the weak modality."
        f"{_styles(study)}"
    )


def _about_selection(study: Study) -> str:
    last = max(run.rounds[-1].round for _, run in study.runs())
    width = bin_width(last)
    binned = (
        f" With more than {MAX_BARS} rounds, each bar stands for {width} rounds together."
        if width > 1
        else ""
    )
    return (
        "Share of the clients selected in each round that train all they hold, or only some of "
        f"their modalities.{binned}"
    )


def _about_classes(study: Study) -> str:
    number = len(partitions(study))
    return "Training samples of each class that each client holds" + (
        f"; {number} different partitions." if number > 1 else "; the same in all runs."
    )


def _about_traffic(study: Study) -> str:
    return f"{_TRAFFIC.capitalize()}, added up over the rounds.{_styles(study)}"


def _styles(study: Study) -> str:
    several = len({run.seed for _, run in study.runs()}) > 1
    return " Colours tell methods apart, line styles seeds." if several else ""


#: What is not of metrics: heading, caption, and what is said where there is nothing to draw.
_OTHERS: dict[str, tuple[str, Callable[[Study], str], str]] = {
    "ratio": (
        "Global imbalance ratio",
        _about_ratio,
        "None of these runs measured imbalance ratios.",
    ),
    "selection": ("Modalities selected", _about_selection, "No round has selected a client yet."),
    "classes": (
        "Class counts by client",
        _about_classes,
        "No client's class counts are known yet.",
    ),
    "traffic": ("Traffic", _about_traffic, "No message was counted yet."),
}


# --- words --------------------------------------------------------------------------------------


def _and(words: Iterable[str], comma: str = ", ") -> str:
    *most, last = words
    return f"{comma.join(most)} and {last}" if most else last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
