"""Hooks into a federation: at its start, after each reply, after each round, at its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .decisions import Decisions
from .messages import Assignment, ClientInfo


@dataclass(frozen=True)
class Metric:
    """A number per round that a callback puts into ``RoundReport.metrics``, declared once.

    Whatever shows a run (the console's table, the summary, the report's table and figures) takes
    from here what to call it and how to draw it.

    Parameters
    ----------
    name : str
        Its key in ``RoundReport.metrics``.
    title : str
        What readers see; with "{modality}" in it, the value is a mapping by modality.
    unit : str, optional
        "%" for shares, which are kept in [0, 1] and shown in percent; others are shown as they
        are.
    figure : str, optional
        What the values are of: metrics of one figure share its axes. By default the title.
    column : str, optional
        Head of the console's column, with "{modality}" as in the title; empty: none.
    about : str, optional
        A sentence for readers of the report.
    lower_is_better : bool, default False
        As of losses and errors: ranks are by it.

    Examples
    --------
    >>> Metric("alone", "{modality} alone", "%").label("gray")
    'gray alone'
    """

    name: str
    title: str
    unit: str = ""
    figure: str = ""
    column: str = ""
    about: str = ""
    lower_is_better: bool = False

    @property
    def by_modality(self) -> bool:
        """Whether the value is a mapping by modality."""
        return "{modality}" in self.title

    @property
    def axis(self) -> str:
        """What the values are of, as ``figure`` says."""
        return self.figure or self.title.replace("{modality}", "").strip()

    def label(self, modality: str | None = None) -> str:
        """Return the title, of one modality where it is by modality."""
        return self.title.replace("{modality}", modality or "")

    def shown(self, value: float) -> float:
        """Return a value in the unit that readers see."""
        return 100 * value if self.unit == "%" else value

    def text(self, value: float) -> str:
        """Return a value, or a spread of values, as readers see it, without the unit."""
        return f"{self.shown(value):.1f}" if self.unit == "%" else f"{value:.4g}"


@dataclass
class ClientReport:
    """What one client did in one round."""

    client_id: str
    phase: str  # "probe", "train"; "test", "test-global": see strategies.federation.client_tests
    modalities: tuple[str, ...]
    num_samples: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0  # from sending the task to receiving the answer
    status: str = "ok"  # or why the answer was left out
    weight: float | None = None  # its share of the samples that are merged
    update_norm: float | None = None  # of its change to what it was sent, as it came
    update_cosine: float | None = None  # between that and how the global model changed
    note: str = ""  # what of the answer stood out and was scaled down


@dataclass
class RoundReport:
    """What happened in one round; callbacks may add to ``metrics``.

    A round that came to nothing is tried again: ``attempt`` counts from 0, and ``failed`` says why
    one came to nothing. A callback that ends the federation may say why in ``ended``.
    """

    round: int
    assignments: list[Assignment] = field(default_factory=list)
    clients: list[ClientReport] = field(default_factory=list)
    joined: list[ClientInfo] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    picks: list[dict[str, Any]] = field(default_factory=list)  # decisions with their reasons
    ratios: dict[str, float] = field(default_factory=dict)  # global, Eq. 18
    weak: str | None = None
    bytes_down: int = 0  # probes and training; enrolment, some KiB per node once, is not counted
    bytes_up: int = 0
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what readers of the run should know
    attempt: int = 0
    failed: str = ""
    ended: str = ""

    @property
    def failures(self) -> dict[str, str]:
        """Clients whose answer was left out, with the reason."""
        return {c.client_id: c.status for c in self.clients if c.status != "ok"}

    @property
    def trained(self) -> list[ClientReport]:
        """Clients whose training was taken over, by client id."""
        return [c for c in self.clients if c.phase == "train" and c.status == "ok"]


@dataclass(frozen=True)
class Connections:
    """Who is there at one moment.

    Attributes
    ----------
    clients : dict
        Every client known, by client id.
    nodes : dict
        The node of every client that is connected, by client id.
    refused : dict
        Why nodes that are connected may not take part, by node id.
    """

    clients: dict[str, ClientInfo]
    nodes: dict[str, int]
    refused: dict[int, str]


class Callback:
    """Base class; every hook does nothing until overridden.

    Attributes
    ----------
    metrics : tuple of Metric
        What it adds to every report's ``metrics``, to be shown; numbers that are not declared
        are recorded only.
    before_next_round : bool
        Whether ``after_round`` must have run before the next round begins: because it changes the
        strategy, decides by the evaluation whether to go on, or keeps count of replies. Otherwise
        an app may run it beside the next round, in another thread, with a copy of the strategy as
        it was when the round ended.
    """

    metrics: tuple[Metric, ...] = ()
    before_next_round: bool = False

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Run once, before the first round; ``strategy.state`` is the state started from."""

    def on_connections(self, connections: Connections) -> None:
        """Run after every look at who is connected: while clients are waited for, and in rounds."""

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Run when ``total`` tasks of a phase ("enrol", "probe", "train", "test") are sent."""

    def on_reply(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Run after each reply of a phase."""

    def after_round(self, strategy: Decisions, report: RoundReport) -> bool | None:
        """Run after a complete round; return True to stop the federation here."""

    def after_failure(self, strategy: Decisions, report: RoundReport) -> bool | None:
        """Run after a try of a round that came to nothing, and changed nothing; as after_round."""

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Run once, at the end, also after an error."""


def tell_end(
    callbacks: Iterable[Callback], strategy: Decisions, error: BaseException | None, *, failed: bool
) -> None:
    """Tell all callbacks of the end, also after one of them has raised.

    Parameters
    ----------
    error : BaseException or None
        What ended the run early; where nothing did, callbacks are told what one before them raised.
    failed : bool
        Whether the caller raises it: what callbacks raise is then noted with it, and not raised.

    Raises
    ------
    Exception
        The first that one of them raised; the others are noted with it.
    """
    first = error if failed else None
    for callback in callbacks:
        try:
            callback.on_end(strategy, first if error is None else error)
        except Exception as raised:
            if first is None:
                first = raised
            elif raised is not first:
                first.add_note(f"besides, at the end: {type(raised).__name__}: {raised}")
    if first is not None and not failed:
        raise first
