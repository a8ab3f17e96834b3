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
#: What to do where shared memory is too small.
ENLARGE = (
    f"enlarge it (docker run --shm-size=…, or mount -o remount,size=… {_SHARED_MEMORY}), or take "
    "--engine inline"
)
#: One machine's Ray that is slow to answer is not lost: by itself Ray gives it up after five checks
#: of some seconds, and all that works there with it.
PATIENT = {"health_check_failure_threshold": 200}

#: Clusters of this process that are in use; Ray allows one connection.
_users = 0


class Cluster:
    """Ray, started here or joined.

    Parameters
    ----------
    address : str, optional
        Of a cluster to join; empty to start one.
    object_store : int, optional
        Bytes of shared memory, of a cluster that is started; by default as much as Ray takes.

    Raises
    ------
    EngineError
        If the cluster does not answer, or there is too little shared memory.
    """

    def __init__(self, address: str = "", object_store: int | None = None) -> None:
        global _users
        self._here = True
        # Whoever began with Ray before us ends it as well.
        self._ours = _users > 0 or not ray.is_initialized()
        if not ray.is_initialized():
            self._init(address, object_store)
        _users += self._ours

    def _init(self, address: str, object_store: int | None) -> None:
        # Ray hides GPUs from workers that asked for no share of one, and announces an end of that.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address:
            _check_answers(address)
            options["address"] = address
        else:
            # Without "local" Ray joins what `ray start` began here, or RAY_ADDRESS names.
            options |= {"address": "local", "num_cpus": os.cpu_count()}
            # Nobody looks at Ray's dashboard, which takes seconds to start.
            options["include_dashboard"] = False
            options["object_store_memory"] = _checked_store(object_store)
            options["_system_config"] = PATIENT
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

    def slots(self, cpus: float, gpus: float) -> int:
        """Return how many workers fit that need so many cores and GPUs.

        Raises
        ------
        EngineError
            If none does, on any machine.
        """
        machines = self._machines()
        fitting = sum(_fitting(machine, cpus, gpus) for machine in machines)
        if not fitting:
            most = max((m.get("CPU", 0.0) for m in machines), default=0.0)
            there = max((m.get("GPU", 0.0) for m in machines), default=0.0)
            raise EngineError(
                f"a client needs {cpus:g} cores and {gpus:g} GPUs, the largest machine has "
                f"{most:g} and {there:g}: lower cpus_per_client or gpus_per_client"
            )
        return fitting

    @property
    def store(self) -> float:
        """Bytes of shared memory of the smallest machine."""
        return min((m.get("object_store_memory", 0.0) for m in self._machines()), default=0.0)

    def check_store(self, payload: int, workers: int) -> None:
        """Refuse messages of more bytes than there is room for.

        Raises
        ------
        EngineError
            If the store cannot hold what goes out, and what each worker answers twice.
        """
        needed = payload * (1 + 2 * workers)
        if needed > self.store:
            raise EngineError(
                f"Ray's object store has {self.store / 2**20:.0f} MiB, models of "
                f"{payload / 2**20:.0f} MiB for {workers} workers need {needed / 2**20:.0f} MiB; "
                f"it lies in {_SHARED_MEMORY}: {ENLARGE}"
            )

    def has_room(self, workers: int, cpus: float, gpus: float) -> bool:
        """Whether more workers than these fit on the machines that are left."""
        return workers < sum(_fitting(machine, cpus, gpus) for machine in self._machines())

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fitting(machine: dict[str, float], cpus: float, gpus: float) -> int:
    counts = [machine.get("CPU", 0.0) / cpus] if cpus else []
    counts += [machine.get("GPU", 0.0) / gpus] if gpus else []
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


def _checked_store(wanted: int | None) -> int:
    """Return the bytes of a store that shared memory holds: else Ray puts it on disk, and is slow.

    Raises
    ------
    EngineError
        If it does not hold what is wanted.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else memory
    least = max(wanted or 0, _LEAST_STORE)
    if free < least:
        raise EngineError(
            f"{_SHARED_MEMORY} has {free / 2**20:.0f} MiB free, what clients and server share "
            f"needs {least / 2**20:.0f} MiB: {ENLARGE}"
        )
    return (wanted and least) or max(int(min(0.3 * memory, 0.8 * free)), least)
