"""``evaluation.json``: how the model of a run's end does, by modalities and by classes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bmsfed_app.record.files import read_json
from bmsfed_app.record.rows import Row

NAME = "evaluation.json"


class ByClass(Row):
    """Numbers of each class, in the order of the class names; None where there are none.

    Attributes
    ----------
    samples, recall, precision, f1 : list
        Recall is each class's accuracy; the three are shares.
    loss : list
        Mean cross-entropy of the class's samples, in nats.
    ece : list
        Expected calibration error over the class's samples.
    """

    samples: list[float]
    recall: list[float | None]
    precision: list[float | None]
    f1: list[float]
    loss: list[float | None]
    ece: list[float | None]


class View(Row):
    """One test; of a method with several models their weighted mean.

    Attributes
    ----------
    samples : float
        Those tested.
    accuracy, macro_f1, uar : float
        Shares; uar is the mean of the classes' recalls.
    loss : float or None
        Mean cross-entropy, in nats; None where it is not finite, as by prototypes of which a
        class has none.
    ece : float
        Expected calibration error, 15 bins.
    by_class : ByClass
    confusion : list of lists of float
        Samples by true class (row) and class found (column).
    """

    samples: float
    accuracy: float
    macro_f1: float
    uar: float
    loss: float | None
    ece: float
    by_class: ByClass
    confusion: list[list[float]]


class SplitViews(Row):
    """How a model does on one split, by what it sees of the samples.

    Attributes
    ----------
    all : View
        All modalities that a sample has.
    prototype, head : dict
        Each modality alone, of the samples that have it: by nearest prototype, and through the
        head.
    without : dict
        Each modality left out, of the samples that have any other.
    """

    all: View
    prototype: dict[str, View] = Field(default_factory=dict)
    head: dict[str, View] = Field(default_factory=dict)
    without: dict[str, View] = Field(default_factory=dict)

    def named(self) -> dict[str, View]:
        """Return all views by what readers call them."""
        named = {"all modalities": self.all}
        named |= {f"{m} by prototype": view for m, view in self.prototype.items()}
        named |= {f"{m} through the head": view for m, view in self.head.items()}
        return named | {f"without {m}": view for m, view in self.without.items()}


class ModelViews(Row):
    """How the model of one round does: ``test``, ``masked`` as in training, ``validation``."""

    round: int
    splits: dict[str, SplitViews]


class RunEvaluation(Row):
    """``evaluation.json``.

    Attributes
    ----------
    class_names : list of str
    last : ModelViews
        Of the last round.
    best : ModelViews or None
        Of the best round by validation, where the run kept it (``keep: best``).
    """

    class_names: list[str]
    last: ModelViews
    best: ModelViews | None = None


def read_evaluation(folder: Path) -> RunEvaluation | None:
    """Read a run's, or return None where it has none: it is going on, or is of an older version.

    Raises
    ------
    RunFolderError
        If it cannot be read.
    """
    file = folder / NAME
    return read_json(file, RunEvaluation) if file.exists() else None
