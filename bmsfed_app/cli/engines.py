"""Which engine an experiment's clients work on, and how it is set up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import Message

from bmsfed_app.config import ConfigError, ExperimentConfig
from bmsfed_app.devices import check_compiler, find_device
from bmsfed_app.engine import InlineGrid, Work
from bmsfed_app.engine.base import SimulationGrid
from bmsfed_app.engine.work import Describe
from bmsfed_app.models.cost import forward_flops, model_bytes
from bmsfed_app.partitions import Share
from client_app.app import answer_together, app

if TYPE_CHECKING:
    from bmsfed_app.engine.cluster import Cluster

#: Work of fewer seconds on one core is done before processes have paid for their start.
_WORTHWHILE = 60.0
#: What a core is taken to do: operations a second, and seconds of a step whatever it computes.
_FLOPS, _STEP = 4e10, 0.003


def check_machine(config: ExperimentConfig) -> None:
    """Refuse an experiment that asks for more than the machine has.

    Raises
    ------
    ConfigError
        If it lacks cores or GPUs, or the engine cannot do what is asked for.
    ValueError
        If ``torch.compile`` does not work here and is asked for.
    """
    if config.compile:
        check_compiler(find_device(config.device))
    if config.ray_address:
        if config.engine == "inline":
            raise ConfigError(
                "engine: inline works in this process, ray_address names a cluster: set one of them"
            )
        return  # what the cluster has is seen when it is joined
    cores = os.cpu_count() or 1
    if config.cpus_per_client > cores:
        raise ConfigError(
            f"cpus_per_client: {config.cpus_per_client:g} of {cores} cores; lower it to {cores}"
        )
    wants_gpu = config.gpus_per_client > 0 or config.device == "cuda"
    if wants_gpu and not torch.cuda.is_available():
        raise ConfigError("no GPU is available: set gpus_per_client to 0 and device to auto or cpu")
    if config.device == "cuda" and not config.gpus_per_client and config.engine == "ray":
        raise ConfigError("device: cuda needs a share of a GPU per client; set gpus_per_client")
    if config.gpus_per_client > torch.cuda.device_count():
        raise ConfigError(
            f"gpus_per_client: {config.gpus_per_client:g} of {torch.cuda.device_count()} GPUs"
        )


def choose_engine(config: ExperimentConfig, shares: Sequence[Share]) -> tuple[str, str]:
    """Return the engine that an experiment runs on, and why.

    Parameters
    ----------
    config : ExperimentConfig
        With its number of clients.
    shares : sequence of Share
        What each client has.
    """
    if config.engine != "auto":
        return config.engine, "as set"
    if config.ray_address:
        return "ray", "a cluster is joined"
    if not config.gpus_per_client and find_device(config.device).type == "cuda":
        return "inline", "on the GPU; with gpus_per_client, several clients share it on Ray"
    at_once = int((os.cpu_count() or 1) / config.cpus_per_client)
    if config.gpus_per_client:
        at_once = min(at_once, int(torch.cuda.device_count() / config.gpus_per_client))
    if at_once < 2:
        return "inline", "there is room for one client at a time"
    seconds = expected_seconds(config, shares)
    if seconds < _WORTHWHILE:
        return "inline", f"about {max(seconds, 1):.0f} s of work"
    return "ray", f"{at_once} clients at a time"


def expected_seconds(config: ExperimentConfig, shares: Sequence[Share]) -> float:
    """Return about how long all of an experiment's training takes on one core of a CPU."""
    rows = sum(len(share.rows) for share in shares) / len(shares)
    per_round = config.per_round if config.per_round >= 1 else config.per_round * len(shares)
    visits = config.rounds * per_round * config.local_epochs
    samples = visits * rows
    steps = visits * max(rows / config.batch_size, 1)
    return steps * _STEP + 3 * samples * forward_flops(config.network_spec()) / _FLOPS


def open_engine(
    config: ExperimentConfig,
    engine: str,
    shares: Sequence[Share],
    cluster: Callable[[], Cluster] | None = None,
) -> SimulationGrid:
    """Return the grid of an experiment's simulated clients.

    Parameters
    ----------
    config : ExperimentConfig
        With its number of clients.
    engine : {"inline", "ray"}
    shares : sequence of Share
        What each client has.
    cluster : callable, optional
        Of :func:`~bmsfed_app.engine.early.early_cluster`.

    Raises
    ------
    EngineError
        If the machine, or the cluster, lacks what it needs.
    """
    pack = config.packed_clients
    options: Any = {
        "together": answer_together if pack > 1 else None,
        "pack": pack,
        "describe": work_of([len(share.rows) for share in shares]),
    }
    if engine == "inline":
        return InlineGrid(app, config.clients, **options)
    from bmsfed_app.engine.ray_grid import RayGrid  # loads ray

    return RayGrid(
        app,
        config.clients,
        cpus=config.cpus_per_client,
        gpus=config.gpus_per_client,
        address=config.ray_address,
        cluster=cluster() if cluster else None,
        payload=model_bytes(config.network_spec()),
        **options,
    )


def work_of(samples: Sequence[int]) -> Describe:
    """Tell the work of a message of ours by what it asks for and how many samples the client has.

    Parameters
    ----------
    samples : sequence of int
        By ``partition-id``.
    """

    def describe(message: Message) -> Work:
        """Read a message's type and orders."""
        kind = message.metadata.message_type
        if kind == "query.enrol":
            return Work(kind)
        orders = json.loads(str(message.content.config_records["config"]["orders"]))
        size = samples[message.metadata.dst_node_id - 1]
        return Work((kind, orders["kind"], *orders["modalities"]), max(size, 1))

    return describe
