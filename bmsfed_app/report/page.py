"""The report's page: one HTML file with everything inside it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from bmsfed_app.partitions import PARTITIONS, read_partition
from bmsfed_app.report.figures import MAX_BARS, bin_width, partitions
from bmsfed_app.report.runs import (
    LAST_ROUNDS,
    Run,
    Series,
    Study,
    Summary,
    mean_and_interval,
    summarise,
)

#: What a page of this module carries, so that the next report knows that it may replace it.
GENERATOR = "bmsfed report"

#: Failures that are listed; the rest is counted.
MAX_FAILURES = 200

_NONE = "–"

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1f2937; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main, header.top { max-width: 68rem; margin: 0 auto; padding: 1rem 1.25rem; }
header.top { padding-top: 2rem; padding-bottom: 0; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 2.2rem 0 .5rem; border-bottom: 2px solid #e5e7eb;
  padding-bottom: .25rem; }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
h4 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 48rem; }
.lead { color: #4b5563; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption, figcaption, .hint { color: #4b5563; font-size: .85rem; text-align: left; }
caption { caption-side: bottom; padding-top: .4rem; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e5e7eb; }
thead th { color: #374151; background: #f8fafc; font-weight: 600; vertical-align: bottom;
  white-space: normal; }
th[scope=colgroup] { text-align: center; border-left: 1px solid #e5e7eb; }
td.first, th.first { border-left: 1px solid #e5e7eb; }
.text, tbody th { text-align: left; }
.wrap { white-space: normal; overflow-wrap: break-word; min-width: 14rem; max-width: 34rem; }
tbody th { font-weight: 500; background: #fff; position: sticky; left: 0; max-width: 16rem;
  min-width: 7.5rem; white-space: normal; overflow-wrap: break-word; }
tr.mean > * { font-weight: 650; background: #eff6ff; }
small { font-size: .85em; font-weight: 400; white-space: nowrap; }
tr.mean > * { border-bottom: 2px solid #bfdbfe; }
figure { margin: .6rem 0 0; }
figure img { display: block; width: 100%; height: auto; max-width: 60rem; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.card { border: 1px solid #e5e7eb; border-radius: .5rem; padding: .8rem .9rem; background: #fafafa;
  min-width: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .7rem; margin: 0;
  font-size: .85rem; }
dt { color: #6b7280; }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92em; }
.note { background: #fffbeb; border-left: 4px solid #f59e0b; padding: .35rem .7rem;
  margin: .6rem 0 0; font-size: .88rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  main, header.top { padding-left: .8rem; padding-right: .8rem; }
  .cards { grid-template-columns: 1fr; }
  tbody th { max-width: 8rem; min-width: 6rem; }
  figure img { min-width: 38rem; }
}
@media print {
  @page { margin: 12mm; }
  body { font-size: 10pt; }
  main, header.top { max-width: none; padding-left: 0; padding-right: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .25rem; white-space: normal; }
  tbody th { position: static; }
  figure, .card, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


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
    title = f"Federated runs on {_and([s.dataset for s in studies])}"
    files = " ".join(name for found in figures for name, _ in found.values())
    body = "".join(_study(s, f) for s, f in zip(studies, figures, strict=True))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f'<meta name="generator" content="{GENERATOR}">\n'
        f'<meta name="figures" content="{escape(files)}">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<header class="top">\n<h1>{escape(title)}</h1>\n'
        f'<p class="lead">{escape(_lead(studies))}</p>\n</header>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
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


def _study(study: Study, figures: Mapping[str, tuple[str, bytes]]) -> str:
    parts = [
        f"<section>\n<h2>{escape(study.dataset)}</h2>\n",
        f'<h3>What was run</h3>\n<div class="cards">\n{_cards(study)}</div>\n',
        f"<h3>Results</h3>\n{_results(study)}",
    ]
    for kind, (heading, explain) in _FIGURES.items():
        parts.append(f"<h3>{escape(heading)}</h3>\n")
        if kind in figures:
            parts.append(_figure(figures[kind], f"{heading}: {_names(study)}", explain(study)))
        else:
            parts.append(f'<p class="hint">{_MISSING[kind]}</p>\n')
    return "".join([*parts, _failures(study), "</section>\n"])


# --- what was run -------------------------------------------------------------------------------


def _cards(study: Study) -> str:
    """One card for what all runs have in common, then one for each run."""
    runs = list(study.runs())
    facts = [_facts(run) for _, run in runs]
    shared = {k: v for k, v in facts[0].items() if all(f[k] == v for f in facts)}
    if len(runs) == 1:
        return _card(runs[0][0].run_label(runs[0][1]), shared, runs[0][1].notes)
    cards = [_card("every run", shared, ())]
    for (series, run), own in zip(runs, facts, strict=True):
        differing = {k: v for k, v in own.items() if k not in shared}
        cards.append(_card(series.run_label(run), differing, run.notes))
    return "".join(cards)


def _card(heading: str, facts: Mapping[str, str], notes: Iterable[str]) -> str:
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    cautions = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<article class="card"><h4>{escape(heading)}</h4><dl>{rows}</dl>{cautions}</article>\n'


def _facts(run: Run) -> dict[str, str]:
    """What a reader needs to know to run it again, as HTML by name."""
    return {
        "method": escape(run.method),
        "data set": escape(run.dataset),
        "modalities": escape(", ".join(run.modalities)),
        "seed": str(run.seed),
        "rounds": f"{run.rounds[-1].number} of {run.planned}",
        "clients": escape(_clients(run)),
        "partition": escape(_partition(run)),
        "commit": _code(run.info.get("commit") or "unknown"),
        "command": _code(run.info.get("command") or "unknown"),
        "hardware": escape(str(run.info.get("hardware") or "unknown")),
        "started": escape(str(run.info.get("started") or "unknown").replace("T", " ")),
        "versions": escape(_versions(run.info.get("versions") or {})),
        "folder": _code(run.path),
    }


def _clients(run: Run) -> str:
    """Say how many clients there are, what they hold and how many train per round."""
    held: dict[tuple[str, ...], int] = {}
    for client in run.clients.values():
        held[client.modalities] = held.get(client.modalities, 0) + 1
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


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown"


# --- results ------------------------------------------------------------------------------------

#: Numbers of a run, by column: None where the run has none.
_Cells = list[float | None]


def _results(study: Study) -> str:
    rows = []
    for series in study.series:
        rows += [_run_row(series, run, study) for run in series.runs]
        if len(series.comparable()) > 1:
            rows.append(_mean_row(series, study))
    return (
        f'<div class="scroll"><table>\n{_head(study)}<tbody>\n{"".join(rows)}</tbody>\n</table>'
        f"</div>\n{_legend(study)}"
    )


def _head(study: Study) -> str:
    groups = ["all modalities", *(f"{m} alone" for m in study.modalities)]
    wide = "".join(f'<th scope="colgroup" colspan="3">{escape(g)}</th>' for g in groups)
    three = '<th class="first" scope="col">last</th><th scope="col">best</th>'
    three += f'<th scope="col">mean<br>of {LAST_ROUNDS}</th>'
    return (
        '<thead>\n<tr><th class="text" scope="col" rowspan="2">run</th>'
        '<th scope="col" rowspan="2">rounds</th>'
        f'{wide}<th class="first text" scope="col" rowspan="2">proto&shy;types</th>'
        '<th scope="colgroup" colspan="2">MiB per client<br>and round</th>'
        '<th class="first" scope="col" rowspan="2">minutes</th></tr>\n'
        f'<tr>{three * len(groups)}<th class="first" scope="col">down</th>'
        '<th scope="col">up</th></tr>\n</thead>\n'
    )


def _run_row(series: Series, run: Run, study: Study) -> str:
    cells = "".join(_percents([v], i) for i, v in enumerate(_accuracies(run, study)))
    return _row(
        series.run_label(run),
        f"{run.rounds[-1].number}" if run.complete else f"{run.rounds[-1].number} of {run.planned}",
        cells,
        run.prototypes or _NONE,
        [[v] for v in _costs(run)],
    )


def _mean_row(series: Series, study: Study) -> str:
    runs = series.comparable()
    columns = zip(*(_accuracies(run, study) for run in runs), strict=True)
    cells = "".join(_percents(values, i) for i, values in enumerate(columns))
    used = dict.fromkeys(run.prototypes for run in runs if run.prototypes)
    costs = list(zip(*(_costs(run) for run in runs), strict=True))
    label = f"{series.label}, mean of {len(runs)} seeds"
    return _row(label, str(runs[0].planned), cells, ", ".join(used) or _NONE, costs, "mean")


def _row(
    label: str,
    rounds: str,
    cells: str,
    prototypes: str,
    costs: Sequence[Sequence[float | None]],
    kind: str = "run",
) -> str:
    down, up, minutes = (_number(c) for c in costs)
    return (
        f'<tr class="{kind}"><th scope="row">{escape(label)}</th><td>{rounds}</td>{cells}'
        f'<td class="first text">{escape(prototypes)}</td><td class="first">{down}</td>'
        f'<td>{up}</td><td class="first">{minutes}</td></tr>\n'
    )


def _accuracies(run: Run, study: Study) -> _Cells:
    """Last, best and closing mean: of all modalities together, then of each alone."""
    cells: _Cells = []
    for modality in (None, *study.modalities):
        summary = summarise(run, modality)
        cells += _three(summary) if summary else [None] * 3
    return cells


def _three(summary: Summary) -> _Cells:
    return [summary.last, summary.best, summary.mean]


def _costs(run: Run) -> _Cells:
    """MiB down and up per client and round, minutes in all."""
    traffic: _Cells = list(run.megabytes_per_client() or (None, None))
    return [*traffic, sum(r.seconds for r in run.rounds) / 60]


def _percents(values: Sequence[float | None], index: int) -> str:
    """Return a cell in percent: a value, or the mean of several and its interval."""
    first = ' class="first"' if index % 3 == 0 else ""
    known = [100 * v for v in values if v is not None]
    if len(known) < len(values):
        text = _NONE
    elif len(known) == 1:
        text = f"{known[0]:.1f}"
    else:
        mean, half = mean_and_interval(known)
        text = f"{mean:.1f}<br><small>± {half:.1f}</small>"
    return f"<td{first}>{text}</td>"


def _number(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):,.2f}" if known and len(known) == len(values) else _NONE


def _legend(study: Study) -> str:
    parts = [
        "Percent of the test split.",
        f"“mean of {LAST_ROUNDS}”: over the last {LAST_ROUNDS} rounds with an evaluation; “best”: "
        "each column's own; the untrained model (round 0) does not count.",
        "Each modality alone is classified by its nearest class prototype, made from the clients' "
        "training data (“train”) or from the test data with its labels (“test”).",
        "MiB per client and round: all messages of the run, enrolment and measurements included, "
        "over the number of clients selected, summed over rounds.",
    ]
    if any(len(series.comparable()) > 1 for series in study.series):
        parts.append("±: half width of the 95 % interval over seeds (Student t).")
    if left := sum(len(s.runs) - len(s.comparable()) for s in study.series if len(s.runs) > 1):
        parts.append(
            f"Means over seeds leave out {_count(left, 'run')} that did not reach the last round, "
            "or that repeat a seed."
        )
    commits = {str(run.info.get("commit")) for _, run in study.runs()}
    if len(commits) > 1:
        parts.append("The runs are of different commits.")
    return f'<p class="hint">{escape(" ".join(parts))}</p>\n'


# --- figures ------------------------------------------------------------------------------------


def _about_curves(study: Study) -> str:
    return f"Top-1 accuracy on the test split after each round{_styles(study)}."


def _about_ratio(study: Study) -> str:
    return (
        "How far a modality lags behind the others, averaged over clients by their samples: above "
        f"1 (the line) it is the weaker one, and the largest ratio names the weak modality"
        f"{_styles(study)}."
    )


def _about_selection(study: Study) -> str:
    last = max(run.rounds[-1].number for _, run in study.runs())
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
    return f"All messages of the run, added up over its rounds{_styles(study)}."


def _styles(study: Study) -> str:
    several = len({run.seed for _, run in study.runs()}) > 1
    return "; colours tell methods apart, line styles seeds" if several else ""


_FIGURES: dict[str, tuple[str, Callable[[Study], str]]] = {
    "accuracy": ("Accuracy by round", _about_curves),
    "ratio": ("Global imbalance ratio", _about_ratio),
    "selection": ("Modalities selected", _about_selection),
    "classes": ("Class counts by client", _about_classes),
    "traffic": ("Traffic", _about_traffic),
}

_MISSING = {
    "accuracy": "No round was evaluated.",
    "ratio": "None of these runs measured imbalance ratios.",
    "selection": "No round has selected a client yet.",
    "classes": "No client's class counts are known yet.",
    "traffic": "No message was counted yet.",
}


def _figure(picture: tuple[str, bytes], alt: str, caption: str) -> str:
    _, png = picture
    width, height = struct.unpack(">II", png[16:24])
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><div class="scroll"><img alt="{escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{escape(caption)}</figcaption>'
        "</figure>\n"
    )


# --- failures -----------------------------------------------------------------------------------


def _failures(study: Study) -> str:
    rows = [(s.run_label(run), *f) for s, run in study.runs() for f in run.failures]
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th scope="row">{escape(client)}</th><td>{number}</td>'
        f'<td class="text wrap">{escape(reason)}</td><td class="text">{escape(label)}</td></tr>\n'
        for label, number, client, reason in rows[:MAX_FAILURES]
    )
    more = len(rows) - MAX_FAILURES
    rest = f'<p class="hint">And {more} more, in history.jsonl.</p>\n' if more > 0 else ""
    return (
        "<h3>Failures</h3>\n<p>Answers that were left out of a round.</p>\n"
        '<div class="scroll"><table>\n<thead><tr><th class="text" scope="col">client</th>'
        '<th scope="col">round</th><th class="text" scope="col">reason</th>'
        f'<th class="text" scope="col">run</th></tr></thead>\n<tbody>\n{cells}</tbody>\n</table>'
        f"</div>\n{rest}"
    )


# --- words --------------------------------------------------------------------------------------


def _names(study: Study) -> str:
    return _and([series.run_label(run) for series, run in study.runs()], "; ")


def _and(words: Iterable[str], comma: str = ", ") -> str:
    *most, last = words
    return f"{comma.join(most)} and {last}" if most else last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _code(value: object) -> str:
    return f"<code>{escape(str(value))}</code>"
