"""The report's page: one HTML file with everything inside it, from ``page.html.j2``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from bmsfed_app.record.run import Run
from bmsfed_app.record.summary import LAST_ROUNDS, Summary, summary
from bmsfed_app.report.closing import closing
from bmsfed_app.report.facts import cards
from bmsfed_app.report.figures import MAX_BARS, bin_width, figure_name, partitions
from bmsfed_app.report.outliers import standing_out
from bmsfed_app.report.statistics import mean_and_interval
from bmsfed_app.report.studies import Series, Study
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
    return template("page.html.j2").render(
        title=f"Federated runs on {_and([s.title for s in studies])}",
        lead=_lead(studies),
        sections=[_section(s, f) for s, f in zip(studies, figures, strict=True)],
        files=" ".join(name for found in figures for name, _ in found.values()),
        generator=GENERATOR,
        max_failures=MAX_FAILURES,
    )


def template(name: str) -> Template:
    """Return one of the templates beside this module."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


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
        "title": study.title,
        "cards": cards(study),
        "headings": [metric.label(modality) for metric, modality in study.columns],
        "rows": _rows(study),
        "legend": _legend(study),
        "figures": _figures(study, figures),
        "closings": [(s.run_label(run), closing(run)) for s, run in study.runs()],
        "outliers": [
            (s.run_label(run), *one) for s, run in study.runs() for one in standing_out(run)
        ],
        "failures": [(s.run_label(run), *f) for s, run in study.runs() for f in run.failures],
    }


# --- results ------------------------------------------------------------------------------------

#: Numbers of a run, by column: None where the run has none.
_Numbers = list[float | None]


def _rows(study: Study) -> list[dict[str, Any]]:
    """The table's rows: every run, and the mean of a series."""
    rows = []
    for series in study.series:
        rows += [_row("run", series.run_label(r), _reached(r), [r], study) for r in series.runs]
        if len(runs := series.comparable()) > 1:
            label = f"{series.label}, mean of {len(runs)} seeds"
            rows.append(_row("mean", label, str(runs[0].planned), runs, study))
    return rows


def _reached(run: Run) -> str:
    last = run.rounds[-1].round
    rounds = f"{last}" if last >= run.planned else f"{last} of {run.planned}"
    return f"{rounds}, failed" if run.failed else rounds


def _row(kind: str, label: str, rounds: str, runs: Sequence[Run], study: Study) -> dict[str, Any]:
    cells = []
    over: dict[str, None] = {}  # in the order of the columns
    for metric, modality in study.columns:
        found = [summary(run.rounds, metric, modality) for run in runs]
        over |= {_over(s): None for s in found if s is not None}
        cells.append(_cell([None if s is None else s.last for s in found], metric))
        cells.append(_cell([None if s is None else s.mean_last for s in found], metric))
    used = dict.fromkeys(run.prototypes for run in runs if run.prototypes)
    return {
        "kind": kind,
        "label": label,
        "rounds": rounds,
        "over": ", ".join(over) or _NONE,
        "cells": cells,
        "prototypes": ", ".join(used) or _NONE,
        "costs": [_number(c) for c in zip(*map(_costs, runs), strict=True)],
    }


def _over(found: Summary) -> str:
    """What a closing mean is over, briefly: "31–40 (3)"."""
    first, last = found.rounds[0], found.rounds[-1]
    return f"{first}–{last} ({len(found.rounds)})" if first < last else f"{last} (1)"


def _costs(run: Run) -> _Numbers:
    """MiB down and up per client and round, minutes in all."""
    traffic: _Numbers = list(run.megabytes_per_client() or (None, None))
    return [*traffic, sum(r.seconds for r in run.rounds) / 60]


def _cell(values: Sequence[float | None], metric: Metric) -> tuple[str, str]:
    """Return a value, or the mean of several and half the width of its interval, with their n."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return _NONE, ""
    if len(known) == 1:
        return metric.text(known[0]), ""
    mean, half = mean_and_interval(known)
    return metric.text(mean), f"{metric.text(half)} (n = {len(known)})"


def _number(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):,.2f}" if known and len(known) == len(values) else _NONE


def _legend(study: Study) -> str:
    about = dict.fromkeys(metric.about for metric, _ in study.columns if metric.about)
    parts = [
        *about,
        f"“last”: after the last round with an evaluation. “mean”: over the evaluations among the "
        f"{LAST_ROUNDS} rounds up to it, for each run those under “mean over” (how many there "
        "are); the untrained model (round 0) does not count.",
        f"MiB per client and round: {_TRAFFIC}, over the number of clients selected, summed over "
        "rounds.",
    ]
    seeds = {len(series.comparable()) for series in study.series}
    if max(seeds) > 1:
        parts.append("±: half width of the 95 % interval over n seeds (Student t).")
    if 2 in seeds:
        parts.append("An interval of two seeds says next to nothing: run more of them.")
    if left := sum(len(s.runs) - len(s.comparable()) for s in study.series if len(s.runs) > 1):
        parts.append(
            f"Means over seeds leave out {_count(left, 'run')} that failed, did not reach the last "
            "round, or repeat a seed."
        )
    parts += [_held(series) for series in study.series]
    if not all(run.info.data for _, run in study.runs()):
        parts.append(
            "These runs do not say what data they saw (they are from before that was recorded, or "
            "the data set cannot tell): they are taken together for the folder and settings of "
            "their data."
        )
    if len({run.info.source or run.info.commit for _, run in study.runs()}) > 1:
        parts.append("The runs are of different versions of the app.")
    return " ".join(filter(None, parts))


def _held(series: Series) -> str:
    """Say where a mean is over clients that held other numbers of samples; else nothing."""
    held = [sum(m.num_samples for m in run.clients.values()) for run in series.comparable()]
    if len(set(held)) < 2:
        return ""
    return (
        f"The clients of {series.label} held {min(held):,} to {max(held):,} training samples in "
        "all, by seed."
    )


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
