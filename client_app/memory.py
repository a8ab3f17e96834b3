"""Local work that does not fit into memory is tried once more, with batches half as large."""

from __future__ import annotations

import dataclasses
import logging

import torch

from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData
from client_app.training import run_task
from strategies import Task, Update

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: How PyTorch says that memory is at an end where it has no class of error for it.
_SAYS_SO = ("out of memory", "can't allocate memory", "not enough memory")


def run_task_within_memory(task: Task, data: LocalData, settings: ClientSettings) -> Update:
    """Do what the server asked for; if memory does not suffice, once more with half the batch.

    Parameters are those of :func:`~client_app.training.run_task`.

    Returns
    -------
    Update
        With the metric ``batch_halved``, the size that was used, if it was halved.

    Raises
    ------
    MemoryError
        If half is too much as well.
    """
    try:
        return run_task(task, data, settings)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error) or settings.batch_size < 2:
            raise
    # Here, not above: what the error's traceback held is free by now.
    torch.cuda.empty_cache()
    size = settings.batch_size // 2
    log.warning("client '%s' ran out of memory: batches of %d from here", data.client_id, size)
    try:
        update = run_task(task, data, dataclasses.replace(settings, batch_size=size))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryError(
            f"client '{data.client_id}' ran out of memory with batches of {settings.batch_size}, "
            f"and of {size}: set a smaller batch_size, or give the node more memory"
        ) from None
    update.metrics["batch_halved"] = float(size)
    return update


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in text for words in _SAYS_SO
    )
