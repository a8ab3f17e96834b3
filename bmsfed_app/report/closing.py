"""How the models of runs' ends do, for the report: ``evaluation.json`` as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bmsfed_app.record.evaluation import ByClass, ModelViews, View, read_evaluation
from bmsfed_app.record.run import Run

#: Classes up to which a confusion matrix can be read.
MAX_CLASSES = 30

_NONE = "–"


def closing(run: Run) -> list[dict[str, Any]]:
    """Return what is shown of a run's last model, and of its best where it kept that.

    Returns
    -------
    list of dict
        ``heading``; ``views``, a row of cells each; ``by_class``, likewise, and ``confusion``, with
        the share of its row behind each cell, both of the test split with all modalities. Empty
        where the run has no evaluation: it is going on, or is of an older version.
    """
    found = read_evaluation(run.path)
    if found is None:
        return []
    models = [("last model", found.last)]
    if found.best is not None:
        models.append(("best model by validation", found.best))
    return [_shown(name, views, found.class_names) for name, views in models]


def _shown(name: str, model: ModelViews, classes: Sequence[str]) -> dict[str, Any]:
    whole = model.splits["test"].all
    return {
        "heading": f"{name}, round {model.round}",
        "views": [
            (split, label, *_numbers(view))
            for split, views in model.splits.items()
            for label, view in views.named().items()
        ],
        "by_class": _classes(whole.by_class, classes),
        "confusion": _confusion(whole, classes) if len(classes) <= MAX_CLASSES else [],
    }


def _numbers(view: View) -> tuple[str, ...]:
    shares = (_percent(v) for v in (view.accuracy, view.macro_f1, view.uar))
    return f"{view.samples:,.0f}", *shares, _plain(view.loss), _percent(view.ece)


def _classes(found: ByClass, classes: Sequence[str]) -> list[tuple[str, ...]]:
    columns = found.recall, found.precision, found.f1
    return [
        (
            name,
            f"{found.samples[i]:,.0f}",
            *(_percent(values[i]) for values in columns),
            _plain(found.loss[i]),
            _percent(found.ece[i]),
        )
        for i, name in enumerate(classes)
    ]


def _confusion(view: View, classes: Sequence[str]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Rows of (samples, percent of the row) by true class."""
    rows = []
    for name, counts in zip(classes, view.confusion, strict=True):
        total = sum(counts) or 1.0
        rows.append((name, [(f"{n:.0f}", round(100 * n / total)) for n in counts]))
    return rows


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}"


def _plain(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"
