"""How long a federation waits, for what, and for whom it waits no longer."""

from __future__ import annotations

import math
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

#: Least seconds that a deadline of the form "3x" leaves: a busy machine is no fault, and twice what
#: Flower takes to notice a process that died, so that its reason comes first.
FLOOR = 120.0
#: Why an answer does not count that came after the round was closed; no fault of its client.
LATE = "late: the round closed with enough answers"


class Clock(Protocol):
    """What time it is; tests have one that stands still until somebody sleeps."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


SYSTEM: Clock = time


@dataclass(frozen=True)
class Deadline:
    """How long an answer may take before it is waited for no longer; by default any time.

    Attributes
    ----------
    seconds : float
        So long; 0: see ``factor``.
    factor : float
        So many times what the slowest client took for its last answer of that kind, but at least
        two minutes; nothing before anybody has answered. 0: any time.
    """

    seconds: float = 0.0
    factor: float = 0.0

    @classmethod
    def read(cls, given: float | str) -> Deadline:
        """Read seconds, or a factor such as "3x"; 0 is no deadline.

        Raises
        ------
        ValueError
            If it is neither.

        Examples
        --------
        >>> Deadline.read("3x"), Deadline.read(20)
        (Deadline(seconds=0.0, factor=3.0), Deadline(seconds=20.0, factor=0.0))
        """
        if not isinstance(given, str):
            if math.isfinite(given) and given >= 0:
                return cls(seconds=float(given))
        elif (found := re.fullmatch(r"(\d+(?:\.\d+)?)x", given)) and float(found[1]) > 1:
            return cls(factor=float(found[1]))
        raise ValueError(
            f"deadline is {given!r}: give seconds, or a factor above 1 of what the slowest client "
            'took, such as "3x"; 0 for none'
        )


@dataclass(frozen=True)
class Waiting:
    """What a federation does about clients that are slow or gone.

    Parameters
    ----------
    patience : float, default 300
        Seconds in which a round that went wrong (nobody there, no usable answer) may be tried
        again, with other clients or with those that come back, before the run is paused.
    deadline : Deadline, optional
        When an answer to measuring or training is waited for no longer.
    enough : float, default 1
        Share of the clients asked to train, above 0, whose answers close the round; what comes
        later is ignored.
    clock : Clock, optional
        By default the system's.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    patience: float = 300.0
    deadline: Deadline = Deadline()
    enough: float = 1.0
    clock: Clock = SYSTEM

    def __post_init__(self) -> None:
        if not self.patience >= 0:
            raise ValueError(f"patience is {self.patience}, it must be at least 0")
        if not 0 < self.enough <= 1:
            raise ValueError(f"enough is {self.enough}, it must be above 0, at most 1")


@dataclass(frozen=True)
class Patience:
    """How long a federation waits, in seconds, and what ends it early."""

    answers: float = 3600.0
    connections: float = 120.0
    stop: threading.Event = field(default_factory=threading.Event)
    waiting: Waiting = Waiting()

    def closing(self, phase: str, total: int) -> Closing:
        """Say what ends an exchange of a phase with ``total`` clients early."""
        if phase == "enrol":
            return Closing()
        enough = math.ceil(self.waiting.enough * total) if phase == "train" else None
        return Closing(self.waiting.deadline, enough)


@dataclass(frozen=True)
class Closing:
    """What ends an exchange before everybody has answered, or the time is over.

    Attributes
    ----------
    deadline : Deadline
    enough : int or None
        So many usable answers suffice; None: all.
    grace : float
        Seconds that a node may be gone before it is waited for no longer.
    """

    deadline: Deadline = Deadline()
    enough: int | None = None
    grace: float = 10.0


class Pace:
    """What answers took: of every node the last one, by type of message."""

    def __init__(self) -> None:
        self._took: dict[str, dict[int, float]] = {}

    def learn(self, message_type: str, node_id: int, seconds: float) -> None:
        """Note how long an answer took, a late one too."""
        self._took.setdefault(message_type, {})[node_id] = seconds

    def limit(
        self, message_types: set[str], timeout: float, deadline: Deadline
    ) -> tuple[float, str]:
        """Return how many seconds to wait for answers, and what to say of who took longer."""
        seconds, why = deadline.seconds or math.inf, ""
        known = [self._took[t] for t in message_types if t in self._took]
        if deadline.factor and known and len(known) == len(message_types):
            slowest = max(took for of_type in known for took in of_type.values())
            seconds = round(max(deadline.factor * slowest, FLOOR), 1)
            why = f"; the slowest so far took {slowest:.3g} s"
            if seconds > FLOOR:
                why = f", {deadline.factor:g} times what the slowest took"
        if seconds >= timeout:
            seconds, why = timeout, ""
        return seconds, f"no answer within {seconds:g} s{why}"
