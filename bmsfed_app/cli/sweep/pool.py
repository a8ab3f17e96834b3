"""Runs beside each other, as tasks of Ray."""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayTaskError, TaskCancelledError

from bmsfed_app.cli.sweep.work import Outcome, run_one
from bmsfed_app.sweeps import SweepRun

if TYPE_CHECKING:
    from bmsfed_app.engine.cluster import Cluster

#: Seconds between two looks at what is going on.
_LOOK = 1.0


class Pool:
    """Starts runs as cores and GPUs become free.

    Ray keeps the processes: one that has ended a run begins the next, with all that it has loaded.

    Parameters
    ----------
    cluster : Cluster
    root : Path
        Folder of run folders; on a cluster, the same on all machines.
    cpus, gpus : float
        Of one run.
    command : str
        What the user called.
    """

    def __init__(
        self, cluster: Cluster, root: Path, cpus: float, gpus: float, command: str
    ) -> None:
        self._cluster, self._root, self._needs = cluster, root, (cpus, gpus)
        self.at_once = cluster.slots(cpus, gpus)
        self._about = command, [p for p in sys.path if p], str(Path.cwd())
        # One whose process dies has failed: it is tried again when the user asks for it.
        options: Any = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        self._task = ray.remote(**options)(run_one)
        self.going: dict[Any, SweepRun] = {}

    def work(
        self,
        runs: Sequence[SweepRun],
        on_end: Callable[[SweepRun, Outcome], None],
        on_look: Callable[[], None],
    ) -> None:
        """Run all of some runs.

        Parameters
        ----------
        runs : sequence of SweepRun
        on_end : callable
            Takes each run as it ends.
        on_look : callable
            Called every second, and when a run has started.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C or SIGTERM, when those under way have come to the end of their rounds; at once
            on a second one.
        """
        waiting = deque(runs)
        with _interrupted_by_signals():
            try:
                while waiting or self.going:
                    self.at_once = self._cluster.slots(*self._needs)
                    while waiting and len(self.going) < self.at_once:
                        self._start(waiting.popleft())
                    on_look()
                    self._take_ended(on_end, _LOOK)
            except KeyboardInterrupt:
                self._stop(on_end)
                raise

    def _start(self, run: SweepRun) -> None:
        values = run.config.model_dump() | {"engine": "inline", "ray_address": ""}
        call = self._task.remote(values, run.folder(self._root), *self._about)
        self.going[call] = run

    def _take_ended(self, on_end: Callable[[SweepRun, Outcome], None], timeout: float) -> None:
        for call in ray.wait(list(self.going), timeout=timeout)[0]:
            run = self.going.pop(call)
            try:
                outcome = ray.get(call)
            except TaskCancelledError:
                outcome = Outcome("stopped", "stopped before its first round")
            except RayTaskError as error:
                outcome = Outcome("failed", str(error).strip().splitlines()[-1])
            except ray.exceptions.RayError as error:
                outcome = Outcome("failed", f"its process died ({type(error).__name__})")
            on_end(run, outcome)

    def _stop(self, on_end: Callable[[SweepRun, Outcome], None]) -> None:
        for call in self.going:
            ray.cancel(call, force=False)
        while self.going:
            self._take_ended(on_end, _LOOK)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM; Python itself does not where a shell began
    the program in the background, with SIGINT ignored."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
