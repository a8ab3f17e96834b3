"""In which order messages are worked on, and how many go to a worker at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from bmsfed_app.engine.work import Work

#: Seconds that a worker should have to do at a time: going there and back takes about a hundredth.
_CHUNK_SECONDS = 0.1
#: Jobs of which nothing is known yet go in calls of so many at most.
_UNKNOWN = 8
#: A worker gets at most this share of what is left, so that all are done at about the same time.
_SHARE = 0.25


@dataclass(eq=False)
class Job:
    """One message that waits for its client.

    Attributes
    ----------
    message : Message
    work : Work
    batch : Any
        What it came with: only jobs of one batch go together.
    alone : bool
        Whether it must not share a worker's call: it was on a worker that died.
    """

    message: Message
    work: Work
    batch: Any = None
    alone: bool = False

    @property
    def id(self) -> str:
        """The message's id."""
        return self.message.metadata.message_id

    @property
    def node(self) -> int:
        """The client's node id."""
        return self.message.metadata.dst_node_id


@dataclass
class Schedule:
    """Jobs that wait, the longest first.

    How long a job takes is estimated from what was measured of its kind; what nothing is known of
    comes first.

    Attributes
    ----------
    pack : int
        So many jobs of one kind are worth being answered together.
    """

    pack: int = 1
    _groups: dict[tuple[Hashable, int], list[Job]] = field(default_factory=dict)
    _seconds: dict[Hashable, float] = field(default_factory=dict)
    _sizes: dict[Hashable, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def all(self) -> list[Job]:
        """Return all jobs."""
        return [job for group in self._groups.values() for job in group]

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs."""
        touched = {}
        for job in jobs:
            key = job.work.kind, id(job.batch)
            group = touched[key] = self._groups.setdefault(key, [])
            group.append(job)
        for group in touched.values():
            # From the end, which is where a list is cheap: the largest, then the lowest node.
            group.sort(key=lambda j: (j.alone, j.work.size, -j.node))

    def learn(self, jobs: Sequence[Job], seconds: float) -> None:
        """Learn what a call with some jobs of one kind took; later calls count twice as much."""
        kind = jobs[0].work.kind
        size = sum(job.work.size for job in jobs)
        self._seconds[kind] = self._seconds.get(kind, 0.0) / 2 + seconds
        self._sizes[kind] = self._sizes.get(kind, 0.0) / 2 + size

    def expected(self, work: Work) -> float | None:
        """Return the seconds that a job should take, None where nothing of its kind is known."""
        if not self._sizes.get(work.kind):
            return None
        return work.size * self._seconds[work.kind] / self._sizes[work.kind]

    def next(self, workers: int, free: Callable[[int], bool]) -> list[Job]:
        """Take jobs for one call of a worker: the longest that waits, and small ones with it.

        Parameters
        ----------
        workers : int
            Workers in all.
        free : callable
            Whether the client of a node id may be asked now; it answers one message at a time.
        """
        groups = [g for g in self._groups.values() if g]
        self._groups = {k: g for k, g in self._groups.items() if g}
        if not groups:
            return []
        group = max(groups, key=lambda g: self._urgency(g[-1].work))
        most = int(len(group) * _SHARE / workers)
        if self.expected(group[-1].work) is None:
            most = min(most, _UNKNOWN)
        most = max(most, self.pack, 1)
        taken: list[Job] = []
        held: list[Job] = []
        nodes: set[int] = set()
        seconds = 0.0
        while group and len(taken) < most and not (taken and (group[-1].alone or taken[0].alone)):
            job = group.pop()
            if job.node in nodes or not free(job.node):
                held.append(job)
                continue
            seconds += self.expected(job.work) or 0.0
            if taken and seconds > _CHUNK_SECONDS and len(taken) >= self.pack:
                held.append(job)
                break
            taken.append(job)
            nodes.add(job.node)
        group.extend(reversed(held))
        return taken

    def drop(self, message_ids: Iterable[str]) -> None:
        """Forget jobs."""
        gone = set(message_ids)
        for group in self._groups.values():
            group[:] = [job for job in group if job.id not in gone]

    def _urgency(self, work: Work) -> float:
        expected = self.expected(work)
        return float("inf") if expected is None else expected
