"""What a method is: settings that say how to build its strategy, its objective and its head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from bmsfed_app.datasets import DatasetInfo
from bmsfed_app.models import NetworkSpec
from bmsfed_app.registry import Registry
from strategies import FedAvg, Metric, ModalityStrategy
from strategies.ranges import Parameter

#: A registered name and its settings: of an objective, or of a head.
Named = tuple[str, dict[str, Any]]


class Experiment(Protocol):
    """What a method may look at to say whether it can run an experiment."""

    clients: int
    per_round: int | float
    whole_share: float

    def dataset_info(self) -> DatasetInfo:
        """What is known of the data set without loading it."""

    def network_spec(self) -> NetworkSpec:
        """What the network is made of."""


class MethodSettings(BaseModel):
    """A method; an instance holds one experiment's settings of it, checked.

    A subclass says what the method is by class attributes, lists the settings that it adds as
    fields, and overrides what it does differently from FedAvg.

    Attributes
    ----------
    summary : str
        One line for ``bmsfed methods``.
    equations : str
        What is computed, a line each.
    travels : str
        What a client and the server send besides FedAvg's parts, and what the server keeps.
    source : str
        Paper, and how we differ from it where we do.
    presets : mapping
        Inherited settings whose defaults are others here.
    overrides : mapping
        Keys of the experiment that the method sets where nobody else does.
    binds : mapping
        Why the experiment may not choose another "head" or "objective" where the method's own is
        the plain one; where it is not, it is what the method is about and cannot be exchanged.
    merges_by : str
        Why the experiment may not choose another ``aggregation``, where the method merges some of
        what clients send in a way of its own.
    metrics : tuple of Metric
        Shares by modality that clients tell of their training, as ``<name>.<modality>`` among their
        metrics; the history has their means over a round's clients.
    number : str
        The setting that a number in place of the name's "x" sets (``fedavg-0.5``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    summary: ClassVar[str]
    equations: ClassVar[str] = "F_k = CE"
    travels: ClassVar[str] = "nothing besides the parts"
    source: ClassVar[str]
    presets: ClassVar[Mapping[str, Any]] = {}
    overrides: ClassVar[Mapping[str, Any]] = {}
    binds: ClassVar[Mapping[str, str]] = {}
    merges_by: ClassVar[str] = ""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    number: ClassVar[str] = ""

    head_columns: Literal["own", "all"] = Field(
        "own", description="average the head's columns of a modality over its trainers, or over all"
    )
    uni_weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="weight of a cross-entropy through each modality's own columns of the head",
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, value in vars(cls).get("presets", {}).items():
            cls.model_fields[name].default = value
        cls.model_rebuild(force=True)

    def strategy(self, **common: Any) -> ModalityStrategy:
        """Build the server's strategy; ``common`` are the arguments that every strategy takes."""
        return FedAvg(head_columns=self.head_columns, **common)

    def objective(self) -> Named:
        """Return the local objective's name and its settings."""
        return "cross_entropy", {}

    def head(self) -> Named:
        """Return the fusion head's name and its settings."""
        return "linear", {}

    def bound(self, part: Literal["head", "objective"]) -> str | None:
        """Say why the experiment cannot choose another head or objective, or return None."""
        name, _ = self.head() if part == "head" else self.objective()
        plain = {"head": "linear", "objective": "cross_entropy"}[part]
        return f"'{name}' is part of what it does" if name != plain else self.binds.get(part)

    def ratio_kind(self) -> str:
        """Return what imbalance ratios are made of: prototype "score"s or "accuracy"."""
        return "score"

    def check(self, config: Experiment) -> str | None:
        """Say why the method cannot run an experiment, or return None."""
        return None


def field(parameter: Parameter[Any], description: str) -> Any:
    """Return the field of a setting that the strategy knows: its default and range are those."""
    bounds: dict[str, Any] = dict(parameter.bounds)
    return Field(parameter.default, description=description, **bounds)


def _no_method(thing: object) -> str | None:
    if not (isinstance(thing, type) and issubclass(thing, MethodSettings)):
        return "is no subclass of bmsfed_app.methods.MethodSettings"
    lacking = [fact for fact in ("summary", "source") if not hasattr(thing, fact)]
    return f"lacks the class attribute '{lacking[0]}'" if lacking else None


#: Every method by name. Where one has a ``number``, any number may stand for the name's "x".
METHODS: Registry[type[MethodSettings]] = Registry(
    "method", "bmsfed.methods", "bmsfed_app.methods", check=_no_method
)


def find_method(name: str, besides: Iterable[str] = ()) -> type[MethodSettings]:
    """Return the method of a name such as ``fedavg`` or ``fedavg-0.3-fix``.

    Parameters
    ----------
    besides : iterable of str
        Names that are known from elsewhere: an unknown name may have meant one of them.

    Raises
    ------
    ValueError
        If there is none, or another package's cannot be loaded.

    Examples
    --------
    >>> find_method("fedavg-0.3-fix")().drop
    0.3
    """
    if name in METHODS:
        return METHODS.find(name)
    for key, method in METHODS.own.items():
        pattern = re.escape(key).replace(r"\-x", r"\-(\d*\.?\d+)")
        if method.number and (match := re.fullmatch(pattern, name)):
            presets = {**method.presets, method.number: float(match[1])}
            return type(method.__name__, (method,), {"presets": presets})
    raise METHODS.unknown(name, besides)
