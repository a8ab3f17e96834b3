"""Metrics of the test split by name, for the key ``metrics`` of an experiment.

Each is a function of labels (n,), int64, and probabilities (n, K), float64, of the global model
with all modalities; :class:`Score` says in which unit it is to be read. Other
packages add theirs by an entry point in the group ``bmsfed.metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmsfed_app.record.rows import COUNTED_METRICS
from bmsfed_app.registry import Registry, not_callable
from server_app.tally import Tally
from strategies import Metric

#: From labels (n,) and probabilities (n, K) to a number.
Measure = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Score:
    """A measure, and how its values are read.

    Attributes
    ----------
    measure : callable
        From labels (n,) and probabilities (n, K) to a number.
    unit : str
        "%" for shares in [0, 1], which are shown in percent.
    lower_is_better : bool
        As of errors.
    """

    measure: Measure
    unit: str = ""
    lower_is_better: bool = False

    def __call__(self, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
        """Measure."""
        return self.measure(labels, probabilities)


METRICS: Registry[Measure] = Registry(
    "metric",
    "bmsfed.metrics",
    check=not_callable,
)


def macro_f1(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """F1 of the classes, each counting alike; 0 for one that is neither there nor predicted."""
    return _tally(labels, probabilities).macro_f1()


def uar(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Unweighted average recall, also called balanced accuracy, over the classes that are there."""
    return _tally(labels, probabilities).uar()


def ece(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Expected calibration error of the class found, in 15 bins."""
    return _tally(labels, probabilities).ece()


for _metric, _measure in zip(COUNTED_METRICS, (macro_f1, uar, ece), strict=True):
    METRICS.add(_metric.name, Score(_measure, _metric.unit, _metric.lower_is_better))

#: Measured at every evaluation, whatever an experiment's ``metrics`` name besides.
ALWAYS = tuple(m.name for m in COUNTED_METRICS)


def with_standard(names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics by name, and those that are measured always after them."""
    return tuple(dict.fromkeys([*names, *ALWAYS]))


def declared(names: Sequence[str]) -> tuple[Metric, ...]:
    """Declare metrics for whatever shows a run; those named stand on the console."""
    return tuple(_declared(name, name in names) for name in with_standard(names))


def measured(names: Sequence[str], logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the values of metrics by name, from logits (n, K) and labels (n,).

    Raises
    ------
    ValueError
        If one fails, or is no number.
    """
    if not names:
        return {}
    truth: Any = labels.cpu().numpy()
    shares: Any = torch.softmax(logits.double(), dim=1).cpu().numpy()
    return {name: _value(name, truth, shares) for name in names}


def _tally(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Tally:
    return Tally.of(torch.from_numpy(probabilities).log(), torch.from_numpy(labels))


def _declared(name: str, on_console: bool) -> Metric:
    found = METRICS.find(name)
    read = found if isinstance(found, Score) else Score(found)
    column = name if on_console else ""
    return Metric(name, name, read.unit, column=column, lower_is_better=read.lower_is_better)


def _value(name: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    try:
        return float(METRICS.find(name)(labels, probabilities))
    except Exception as error:  # whatever somebody's function raises
        raise ValueError(f"metrics: '{name}' failed: {error}; mend it or leave it out") from error
