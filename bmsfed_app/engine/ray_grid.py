"""Clients in processes that Ray looks after: on all cores, on shares of GPUs, on many machines."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from flwr.app import Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from bmsfed_app.engine.base import SimulationGrid, log
from bmsfed_app.engine.bundle import Bundle, loads
from bmsfed_app.engine.cluster import Cluster
from bmsfed_app.engine.schedule import Job, Schedule
from bmsfed_app.engine.work import Describe, Done, EngineError, Together, by_type, failure
from bmsfed_app.engine.worker import Worker, pickled

#: Seconds that a look for answers waits for one.
_WAIT = 0.2
#: So many workers may end before they could work.
_FALSE_STARTS = 3
#: Arrays of fewer bytes in all are not worth an object of their own in shared memory.
_SMALL = 100_000


@dataclass(eq=False)
class _Process:
    """A worker, and what it does now: nothing if it has no call."""

    actor: Any
    call: Any
    jobs: list[Job] = field(default_factory=list)
    started: bool = False


@dataclass(eq=False)
class _Batch:
    """Messages that were pushed together, and their arrays in shared memory."""

    bundle: Bundle
    arrays: Any


class RayGrid(SimulationGrid):
    """Simulated clients that share out the cores and GPUs of a machine, or of a Ray cluster.

    As many worker processes as fit answer for any client. The arrays of messages are put into
    shared memory once, whoever they are for; answers come back the same way. A worker that dies is
    replaced: the client it worked for gets an error reply, clients that only shared its call are
    asked again.

    Parameters
    ----------
    client_app, num_clients, run_config, together, pack, describe
        See :class:`~bmsfed_app.engine.base.SimulationGrid`.
    cpus : float, default 1
        Cores per worker.
    gpus : float, default 0
        Share of a GPU per worker; several workers fit on one.
    workers : int, optional
        Worker processes, if fewer than fit.
    address : str, optional
        Ray cluster to join, such as "auto" or "10.0.0.1:6379"; by default one is started here, and
        ended by :meth:`close`.
    object_store : int, optional
        Bytes of shared memory for what is under way, of a cluster that is started here.
    cluster : Cluster, optional
        One that was joined or started before; :meth:`close` leaves it.
    payload : int, default 0
        Bytes of the arrays of one message, for which there must be room.

    Raises
    ------
    EngineError
        If no worker fits, the cluster does not answer, or shared memory does not suffice.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        cpus: float = 1,
        gpus: float = 0,
        workers: int | None = None,
        address: str = "",
        object_store: int | None = None,
        cluster: Cluster | None = None,
        payload: int = 0,
        run_config: Mapping[str, Any] | None = None,
        together: Together | None = None,
        pack: int = 1,
        describe: Describe = by_type,
    ) -> None:
        super().__init__(
            client_app,
            num_clients,
            run_config=run_config,
            together=together,
            pack=pack,
            describe=describe,
        )
        self._schedule = Schedule(pack)
        self._new: list[Message] = []
        self._busy: set[int] = set()
        self._held = self._false_starts = 0
        self._needs = cpus, gpus
        self._cluster = cluster or Cluster(address, object_store)
        try:
            fitting = self._cluster.slots(cpus, gpus)
            count = min(fitting, num_clients, workers or fitting)
            self._cluster.check_store(payload, count)
            self._room = self._cluster.store / 2  # for answers that wait to be taken over
            self._actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
            app = ray.put(pickled(client_app, together))
            path = [os.path.abspath(entry) for entry in sys.path]
            self._told_workers = app, num_clients, self.clients.run_config, path, os.getcwd()
            self._processes = [self._start() for _ in range(count)]
        except BaseException:
            self._cluster.leave()
            raise

    @property
    def workers(self) -> int:
        """Worker processes that there are now."""
        return len(self._processes)

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        with self._lock:
            for process in self._processes:
                ray.kill(process.actor)
            self._processes = []
            self._cluster.leave()

    # --- messages --------------------------------------------------------------------------------

    def accept(self, message: Message) -> None:
        """Queue a message; a node that does not exist never answers."""
        if 1 <= message.metadata.dst_node_id <= self.clients.total:
            with self._lock:
                self._new.append(message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Keep all workers at work, wait for an answer for a moment, return those there are."""
        wanted = list(message_ids)
        with self._lock:
            self._hand_out()
            self._collect(0 if any(i in self._replies for i in wanted) else _WAIT)
            self._hand_out()
            return self._ready(wanted)

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Drop messages that nobody waits for any more; a worker that is at one is replaced."""
        gone = set(message_ids)
        with self._lock:
            self._new = [m for m in self._new if m.metadata.message_id not in gone]
            self._schedule.drop(gone)
            for message_id in gone:
                self._replies.pop(message_id, None)
            for process in list(self._processes):
                if any(job.id in gone for job in process.jobs):
                    kept = [job for job in process.jobs if job.id not in gone]
                    ray.kill(process.actor)
                    self._replace(process)
                    self._schedule.add(kept)

    # --- workers ---------------------------------------------------------------------------------

    def _start(self) -> _Process:
        actor: Any = self._actor.remote(*self._told_workers)
        return _Process(actor, actor.ready.remote())

    def _replace(self, process: _Process) -> None:
        self._busy -= {job.node for job in process.jobs}
        self._processes.remove(process)
        if self._cluster.has_room(len(self._processes), *self._needs):
            self._processes.append(self._start())

    def _hand_out(self) -> None:
        """Give something to do to every worker that has nothing."""
        if self._new:
            if not self._busy:
                self._held = 0  # what was answered before has been taken over by now
            bundle = Bundle(self._new)
            there = ray.put(bundle.arrays) if bundle.nbytes > _SMALL else bundle.arrays
            batch = _Batch(bundle, there)
            self._schedule.add(Job(m, self.describe(m), batch) for m in self._new)
            self._new = []
        for process in self._processes:
            if process.call is None and len(self._schedule):
                self._give(process)

    def _give(self, process: _Process) -> None:
        jobs = self._schedule.next(len(self._processes), lambda node: node not in self._busy)
        if not jobs:
            return
        nodes, batch = {job.node for job in jobs}, jobs[0].batch
        states = pickle.dumps({n: s for n in nodes if (s := self.clients.states.get(n))})
        data = batch.bundle.dumps([job.message for job in jobs])
        self._busy |= nodes
        process.jobs, process.call = jobs, process.actor.answer.remote(data, batch.arrays, states)

    def _collect(self, seconds: float) -> None:
        """Take in what workers are done with, after waiting for one at most."""
        calls = {p.call: p for p in self._processes if p.call is not None}
        if not calls:
            return
        done, rest = ray.wait(list(calls), num_returns=1, timeout=seconds)
        if done and rest:
            done += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in done:
            self._take(calls[call])

    def _take(self, process: _Process) -> None:
        """Take in what one worker is done with, or that it died."""
        jobs, starting = process.jobs, not process.started
        try:
            result = ray.get(process.call)
        except ray.exceptions.RayTaskError as error:  # not of the app: it came back as an answer
            if starting:
                raise EngineError(f"a worker process cannot load the app: {error.cause}") from None
            self._fail(jobs, f"its worker could not read or send messages: {error.cause}")
        except ray.exceptions.RayError as error:
            self._lost(process, error)
            return
        else:
            if not starting:
                self._answered(jobs, *result)
        self._busy -= {job.node for job in jobs}
        process.started, process.call, process.jobs = True, None, []

    def _answered(
        self, jobs: list[Job], data: bytes, arrays: list[NDArray[Any]], states: bytes
    ) -> None:
        size = sum(a.nbytes for a in arrays)
        if self._held + size > self._room:
            arrays = [np.array(a) for a in arrays]  # shared memory is for what is under way
        else:
            self._held += size
        answers: list[Done] = loads(data, arrays)
        for job in jobs:
            self.clients.states.pop(job.node, None)
        self.clients.states |= pickle.loads(states)
        self._schedule.learn(jobs, sum(done.seconds for done in answers))
        for done in answers:
            self._finish(done)

    def _lost(self, process: _Process, error: Exception) -> None:
        """Replace a worker that died; whoever was alone with it is told so, others try again."""
        jobs, why = process.jobs, _first_line(error)
        self._replace(process)
        if not process.started:
            self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS:
                raise EngineError(
                    f"worker processes end before they can work ({why}): is there memory for so "
                    "many? raise cpus_per_client, so that fewer run at once"
                )
        log.warning("a worker process ended: %s", why)
        if len(jobs) == 1:
            self._fail(jobs, f"its worker process ended: {why}")
        else:
            for job in jobs:
                job.alone = True
            self._schedule.add(jobs)
        if not self._processes:
            waiting = [*self._schedule.all(), *(Job(m, self.describe(m)) for m in self._new)]
            self._schedule.drop(job.id for job in waiting)
            self._new = []
            self._fail(waiting, "no worker process is left, and there is no room for another")

    def _fail(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            self._replies[job.id] = failure(job.message, reason)


def _first_line(error: Exception) -> str:
    """What Ray says of a death, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
