"""A node's own configuration: what it may bound of what the experiment asks for."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from bmsfed_app.registry import nearest
from bmsfed_app.settings import ClientSettings

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: What ``flower-supernode --node-config`` may say; :func:`client_app.data.local_data` reads the
#: first three.
KEYS = (
    *("client-id", "data-dir", "modalities", "device", "threads", "max-batch", "log-dir"),
    *("min-class-count", "plugins"),
)

#: What a simulation says instead of the first three.
_SIMULATED = ("partition-id", "num-partitions")

_EXAMPLES = {"device": '"cpu"', "threads": "2", "max-batch": "16"}


class NodeConfigError(ValueError):
    """A node's configuration cannot be used; the message names the key and the remedy."""


def on_node(settings: ClientSettings, node_config: Mapping[str, Any]) -> ClientSettings:
    """Return the experiment's settings within a node's bounds.

    Parameters
    ----------
    settings : ClientSettings
        What the server asks of all clients alike.
    node_config : mapping
        Flower's node configuration. ``device`` ("auto", "cpu", "cuda", "cuda:1") and ``threads``
        replace the experiment's; ``max-batch`` bounds the batch size.

    Raises
    ------
    NodeConfigError
        If a value is of no use, or this machine has no such device.
    """
    changes: dict[str, Any] = {}
    if "device" in node_config:
        changes["device"] = _device(node_config["device"])
    if "threads" in node_config:
        changes["threads"] = _count(node_config, "threads")
    if bound := max_batch(node_config):
        changes["batch_size"] = min(settings.batch_size, bound)
    return replace(settings, **changes) if changes else settings


def max_batch(node_config: Mapping[str, Any]) -> int | None:
    """Return the most samples that a node takes in one batch; None where it names no bound."""
    return _count(node_config, "max-batch") if "max-batch" in node_config else None


def unknown_keys(node_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that nothing reads."""
    return tuple(sorted(set(node_config) - {*KEYS, *_SIMULATED}))


def warn_of_unknown_keys(node_config: Mapping[str, Any]) -> None:
    """Log keys that nothing reads, once per process."""
    if unknown := unknown_keys(node_config):
        _warn(unknown)


@lru_cache
def _warn(unknown: tuple[str, ...]) -> None:
    for key in unknown:
        log.warning(
            "nothing reads '%s' of the node configuration%s (known: %s)",
            key,
            nearest(key, KEYS),
            ", ".join(KEYS),
        )


def _device(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise _error("device", name, "auto, cpu, cuda, or cuda:1 for one of several GPUs")
    if name.startswith("cuda"):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.removeprefix("cuda").lstrip(":") or 0) >= found:
            has = f"{found} GPUs that torch can use" if found else "no GPU that torch can use"
            raise NodeConfigError(
                f"the node configuration asks for device '{name}', but this machine has {has}: "
                "give device=\"auto\", or mend the GPU's driver or torch's build"
            )
    return name


def _count(node_config: Mapping[str, Any], key: str) -> int:
    value = node_config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _error(key, value, "a whole number of 1 or more, without quotes")
    return value


def _error(key: str, value: Any, wanted: str) -> NodeConfigError:
    return NodeConfigError(
        f"the node configuration's {key} is {value!r}: give {wanted}, as in --node-config '... "
        f"{key}={_EXAMPLES[key]}'"
    )
