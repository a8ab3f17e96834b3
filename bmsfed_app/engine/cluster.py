"""The Ray cluster that workers run in: one of this machine, or one that is joined."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

import ray

from bmsfed_app.engine.work import EngineError

#: Where Ray keeps what processes share.
_SHARED_MEMORY = Path("/dev/shm")
#: Ray refuses less.
_LEAST_STORE = 80 * 2**20
_DEFAULT_STORE = 512 * 2**20

#: Clusters of this process that are in use; Ray allows one connection.
_users = 0


class Cluster:
    """Ray, started here or joined.

    Parameters
    ----------
    address : str
        Of a cluster to join; empty to start one.
    cpus, gpus : float
        What one worker needs.
    object_store : int, optional
        Bytes of shared memory, of a cluster that is started.

    Raises
    ------
    EngineError
        If the cluster does not answer, or there is too little shared memory.
    """

    def __init__(self, address: str, cpus: float, gpus: float, object_store: int | None) -> None:
        global _users
        self.cpus, self.gpus, self._here = cpus, gpus, True
        # Whoever began with Ray before us ends it as well.
        self._ours = _users > 0 or not ray.is_initialized()
        if not ray.is_initialized():
            self._init(address, object_store)
        _users += self._ours

    def _init(self, address: str, object_store: int | None) -> None:
        # Ray hides GPUs from workers that asked for no share of one, and announces an end of that.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address:
            _check_answers(address)
            options["address"] = address
        else:
            # Nobody looks at Ray's dashboard, which takes seconds to start.
            options |= {"include_dashboard": False, "num_cpus": os.cpu_count()}
            options["object_store_memory"] = _checked_store(object_store or _DEFAULT_STORE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                ray.init(**options)
        except Exception as error:
            if not address:
                raise EngineError(f"Ray does not start: {error}") from None
            raise _nobody(address, type(error).__name__) from None

    def leave(self) -> None:
        """Leave the cluster; one that was started here ends with its last user."""
        global _users
        if self._here and self._ours:
            self._here, _users = False, _users - 1
            if not _users:
                ray.shutdown()

    def slots(self) -> int:
        """Return how many workers fit.

        Raises
        ------
        EngineError
            If none does, on any machine.
        """
        machines = self._machines()
        fitting = sum(self._fit(machine) for machine in machines)
        if not fitting:
            most = max((m.get("CPU", 0.0) for m in machines), default=0.0)
            gpus = max((m.get("GPU", 0.0) for m in machines), default=0.0)
            raise EngineError(
                f"a client needs {self.cpus:g} cores and {self.gpus:g} GPUs, the largest machine "
                f"has {most:g} and {gpus:g}: lower cpus_per_client or gpus_per_client"
            )
        return fitting

    @property
    def store(self) -> float:
        """Bytes of shared memory of the smallest machine."""
        return min((m.get("object_store_memory", 0.0) for m in self._machines()), default=0.0)

    def has_room(self, workers: int) -> bool:
        """Whether more workers than these fit on the machines that are left."""
        return workers < sum(self._fit(machine) for machine in self._machines())

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _fit(self, machine: dict[str, float]) -> int:
        counts = [machine.get("CPU", 0.0) / self.cpus] if self.cpus else []
        counts += [machine.get("GPU", 0.0) / self.gpus] if self.gpus else []
        return int(min(counts) + 1e-9) if counts else os.cpu_count() or 1


def _check_answers(address: str) -> None:
    """Refuse an address where nobody listens, which Ray itself tries for many minutes."""
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if not colon:
        return  # such as "auto"
    try:
        socket.create_connection((host, int(port)), timeout=30).close()
    except (OSError, ValueError) as error:
        raise _nobody(address, str(error)) from None


def _nobody(address: str, why: str) -> EngineError:
    return EngineError(
        f"no Ray cluster answers at '{address}' ({why}): start one there with "
        "`ray start --head`, or mend --ray-address"
    )


def _checked_store(wanted: int) -> int:
    """Refuse a store that shared memory cannot hold: Ray would put it on disk, and be slow."""
    wanted = max(wanted, _LEAST_STORE)
    if _SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < wanted:
            raise EngineError(
                f"{_SHARED_MEMORY} has {free / 2**20:.0f} MiB free, what clients and server share "
                f"needs {wanted / 2**20:.0f} MiB: enlarge it (docker run --shm-size=…, or mount -o "
                f"remount,size=… {_SHARED_MEMORY}), or take --engine inline"
            )
    return wanted
