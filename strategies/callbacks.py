"""Hooks into a federation: at its start, after each reply, after each round, at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .decisions import Decisions
from .messages import Assignment, ClientInfo


@dataclass
class ClientReport:
    """What one client did in one round."""

    client_id: str
    phase: str  # "probe" or "train"
    modalities: tuple[str, ...]
    num_samples: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0  # from sending the task to receiving the answer
    status: str = "ok"  # or why the answer was left out


@dataclass
class RoundReport:
    """What happened in one round; callbacks may add to ``metrics``."""

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

    @property
    def failures(self) -> dict[str, str]:
        """Clients whose answer was left out, with the reason."""
        return {c.client_id: c.status for c in self.clients if c.status != "ok"}

    @property
    def trained(self) -> list[ClientReport]:
        """Clients whose training was taken over, by client id."""
        return [c for c in self.clients if c.phase == "train" and c.status == "ok"]


class Callback:
    """Base class; every hook does nothing until overridden."""

    def on_start(self, strategy: Decisions, num_rounds: int) -> None:
        """Run once, before the first round; ``strategy.state`` is the state started from."""

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        """Run when ``total`` tasks of a phase ("enrol", "probe", "train") have been sent."""

    def on_reply(self, server_round: int, phase: str, done: int, total: int) -> None:
        """Run after each reply of a phase."""

    def after_round(self, strategy: Decisions, report: RoundReport) -> bool | None:
        """Run after a complete round; return True to stop the federation here."""

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        """Run once, at the end, also after an error."""
