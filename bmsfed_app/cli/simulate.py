"""Running an experiment's federation: its server in this process, its clients on an engine."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from bmsfed_app.cli.clients import share_out_aloud, with_clients
from bmsfed_app.cli.engines import choose_engine, open_engine
from bmsfed_app.cli.progress import ProgressCallback
from bmsfed_app.config import ConfigError, ExperimentConfig, check_config
from bmsfed_app.engine import EngineError, InlineGrid
from bmsfed_app.engine.base import SimulationGrid
from bmsfed_app.models.batches import batch_fault
from bmsfed_app.partitions import Share, held_out_rows
from server_app.console import TableCallback
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import Callback

if TYPE_CHECKING:
    from bmsfed_app.engine.cluster import Cluster


def check_experiment(config: ExperimentConfig) -> tuple[ExperimentConfig, list[Share]]:
    """Refuse, before any process is started, what could only fail later.

    Returns
    -------
    ExperimentConfig
        The same, with the number of clients.
    list of Share
        What each client has.

    Raises
    ------
    DataError, PartitionError
        If the data, which is prepared, cannot be read or divided.
    """
    train = config.load_data("train", "test").train
    assert train is not None
    config = check_config(with_clients(config, train).model_dump())
    _, shares = share_out_aloud(config, train)
    _check_batches(config, shares)
    return config, shares


def _check_batches(config: ExperimentConfig, shares: Sequence[Share]) -> None:
    """Refuse clients that would train with batches of one sample where that cannot work."""
    spec = config.network_spec()
    for share in shares:
        tested = held_out_rows(len(share.rows), config.holdout, config.seed, share.name)
        rows, size = len(share.rows) - int(tested.sum()), config.batch_size
        if fault := batch_fault(spec, share.name, share.modalities, rows, size):
            raise ConfigError(fault)


def simulate(
    folder: RunFolder,
    console: Console,
    shares: Sequence[Share],
    cluster: Callable[[], Cluster] | None = None,
) -> BaseException | None:
    """Run a folder's experiment to its end, or to Ctrl-C.

    Parameters
    ----------
    folder : RunFolder
        Of an experiment with its number of clients.
    console : Console
    shares : sequence of Share
        What each client has.
    cluster : callable, optional
        Of :func:`~bmsfed_app.engine.early.early_cluster`.

    Returns
    -------
    BaseException or None
        What ended the run early; None if it is complete. Ctrl-C gives ``KeyboardInterrupt``.

    Raises
    ------
    EngineError
        If the clients' engine cannot be set up.
    """
    config, stop = folder.config, threading.Event()
    engine, why = choose_engine(config, shares)
    print(f"engine: {engine} ({why})", flush=True)
    folder.log.note(f"engine: {engine} ({why})")
    callbacks: list[Callback] = [TableCallback(folder, _writer(console))]
    if console.is_terminal:
        callbacks.insert(0, ProgressCallback(console))
    try:
        with (
            open_engine(config, engine, shares, cluster) as grid,
            _stop_on_interrupt(stop, grid),
        ):
            run_experiment(grid, folder, callbacks=callbacks, stop=stop, overlap=engine == "ray")
    except EngineError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return KeyboardInterrupt() if stop.is_set() else error
    return KeyboardInterrupt() if stop.is_set() else None


@contextmanager
def _stop_on_interrupt(stop: threading.Event, grid: SimulationGrid) -> Iterator[None]:
    """The first Ctrl-C ends the run with the last complete round, the second one at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        print(
            "stopping: the last complete round is kept (Ctrl-C again to stop at once)",
            file=sys.stderr,
            flush=True,
        )
        stop.set()
        if isinstance(grid, InlineGrid) and grid.working:
            # Out of a client's work, which nobody waits for.
            raise KeyboardInterrupt("stopped on request")

    previous = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _writer(console: Console) -> Callable[[str], None]:
    if console.is_terminal:
        return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    return lambda line: print(line, flush=True)
