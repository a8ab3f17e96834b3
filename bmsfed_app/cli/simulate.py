"""Running an experiment's federation in this process, with Ray scheduling the clients."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from flwr.serverapp import ServerApp
from rich.console import Console

from bmsfed_app.cli.clients import share_out_aloud, with_clients
from bmsfed_app.cli.progress import ProgressCallback
from bmsfed_app.config import ConfigError, ExperimentConfig, check_config
from bmsfed_app.partitions import Share
from server_app.app import make_app
from server_app.console import TableCallback
from server_app.run_folder import RunFolder
from strategies import Callback

#: Bytes of Ray's shared memory; messages are under a few MiB and live there for a moment.
_OBJECT_STORE = 256 * 2**20


def check_machine(config: ExperimentConfig) -> None:
    """Refuse an experiment that asks for more than the machine has.

    Raises
    ------
    ConfigError
        If it lacks cores or GPUs.
    """
    cores = os.cpu_count() or 1
    if config.cpus_per_client > cores:
        raise ConfigError(
            f"cpus_per_client: {config.cpus_per_client:g} of {cores} cores; lower it to {cores}"
        )
    wants_gpu = config.gpus_per_client > 0 or config.device == "cuda"
    if wants_gpu and not torch.cuda.is_available():
        raise ConfigError("no GPU is available: set gpus_per_client to 0 and device to auto or cpu")
    if config.device == "cuda" and not config.gpus_per_client:
        raise ConfigError("device: cuda needs a share of a GPU per client; set gpus_per_client")
    if config.gpus_per_client > torch.cuda.device_count():
        raise ConfigError(
            f"gpus_per_client: {config.gpus_per_client:g} of {torch.cuda.device_count()} GPUs"
        )


def check_experiment(config: ExperimentConfig) -> ExperimentConfig:
    """Refuse, before any process is started, what could only fail later.

    Returns
    -------
    ExperimentConfig
        The same, with the number of clients.

    Raises
    ------
    DataError, PartitionError
        If the data, which is prepared, cannot be read or divided.
    """
    train = config.load_data("train", "test").train
    assert train is not None
    config = check_config(with_clients(config, train).model_dump())
    _check_batches(config, share_out_aloud(config, train))
    return config


def _check_batches(config: ExperimentConfig, shares: Sequence[Share]) -> None:
    """Refuse clients that would train with batches of one sample where that cannot work."""
    spec = config.network_spec()
    for share in shares:
        rows, size = len(share.rows), config.batch_size
        if fault := spec.batch_fault(share.name, share.modalities, rows, size):
            raise ConfigError(fault)


def simulate(folder: RunFolder, console: Console) -> BaseException | None:
    """Run a folder's experiment to its end, or to Ctrl-C.

    Returns
    -------
    BaseException or None
        What ended the run early; None if it is complete. Ctrl-C gives ``KeyboardInterrupt``.
    """
    config, stop = folder.config, threading.Event()
    callbacks: list[Callback] = [TableCallback(folder, _writer(console))]
    if console.is_terminal:
        callbacks.insert(0, ProgressCallback(console))
    server_app, raised = make_app(folder, callbacks, stop)
    with _stop_on_interrupt(stop):
        _run_on_ray(server_app, config)
    if stop.is_set():
        return KeyboardInterrupt()
    return raised[0] if raised else None


def _run_on_ray(server_app: ServerApp, config: ExperimentConfig) -> None:
    """Run a ServerApp with simulated clients; the one place that knows Flower's simulation."""
    # Ray hides GPUs from clients that asked for no share of one, and announces that this will end.
    warnings.filterwarnings("ignore", message=".*override accelerator", category=FutureWarning)
    # Flower logs as a warning, at every call, that `run_simulation` is deprecated.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from flwr.simulation import run_simulation  # loads ray: not for --help

    from client_app.app import app as client_app

    resources = {"num_cpus": config.cpus_per_client, "num_gpus": config.gpus_per_client}
    # Nobody looks at Ray's dashboard, which takes seconds to start.
    ray_args = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    ray_args |= {"log_to_driver": False}
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=config.clients,
        backend_config={"client_resources": resources, "init_args": ray_args},  # type: ignore[dict-item]
    )


@contextmanager
def _stop_on_interrupt(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the run after what is in flight, the second one at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        print(
            "stopping: clients at work finish, the last complete round is kept "
            "(Ctrl-C again to stop at once)",
            file=sys.stderr,
            flush=True,
        )
        stop.set()

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
