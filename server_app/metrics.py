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

from bmsfed_app.registry import Registry, not_callable
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
    """

    measure: Measure
    unit: str = ""

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
    from sklearn.metrics import f1_score  # takes a second to load

    classes = np.arange(probabilities.shape[1])
    found = probabilities.argmax(axis=1)
    return float(f1_score(labels, found, labels=classes, average="macro", zero_division=0))


def uar(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Unweighted average recall, also called balanced accuracy, over the classes that are there."""
    from sklearn.metrics import recall_score

    there = np.unique(labels)
    found = probabilities.argmax(axis=1)
    return float(recall_score(labels, found, labels=there, average="macro", zero_division=0))


METRICS.add("macro-f1", Score(macro_f1, "%"))
METRICS.add("uar", Score(uar, "%"))


def declared(names: Sequence[str]) -> tuple[Metric, ...]:
    """Declare metrics by name for whatever shows a run."""
    return tuple(_declared(name) for name in names)


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


def _declared(name: str) -> Metric:
    found = METRICS.find(name)
    read = found if isinstance(found, Score) else Score(found)
    return Metric(name, name, read.unit, column=name)


def _value(name: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    try:
        return float(METRICS.find(name)(labels, probabilities))
    except Exception as error:  # whatever somebody's function raises
        raise ValueError(f"metrics: '{name}' failed: {error}; mend it or leave it out") from error
