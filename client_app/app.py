"""The Flower ClientApp: introduces itself, measures, trains."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from bmsfed_app import __version__
from bmsfed_app.devices import check_compiler
from bmsfed_app.models.batches import batch_fault
from bmsfed_app.plugins import check_plug_ins
from bmsfed_app.settings import ClientSettings, read_settings
from client_app.data import LocalData, local_data, training_device
from client_app.divergence import DivergedError
from client_app.log import logged
from client_app.memory import run_task_within_memory
from client_app.node import on_node, warn_of_unknown_keys
from client_app.packed import packing_fault, train_together
from client_app.redaction import redacting, without_paths
from strategies import Task, Update
from strategies.protocol import pack_enrolment, pack_update, unpack_task

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

app = ClientApp(mods=[redacting, logged])  # what a node logs itself is whole


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """Answer who this client is and what it holds."""
    warn_of_unknown_keys(context.node_config)
    settings = _settings(message, context)
    data = local_data(context.node_config, settings)
    who, network = data.client_id, settings.network
    if settings.compile:
        check_compiler(training_device(settings))
    if fault := batch_fault(network, who, data.modalities, len(data), settings.batch_size):
        raise ValueError(fault)
    return Message(pack_enrolment(data.info(), __version__), reply_to=message)


@app.query("measure")
def measure(message: Message, context: Context) -> Message:
    """Answer what the received model is like on this client's data; see the orders' kind."""
    return _answer(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the modalities assigned and answer with the parts that were trained."""
    return _answer(message, context)


def _answer(message: Message, context: Context) -> Message:
    settings = _settings(message, context)
    torch.set_num_threads(settings.threads)
    data = local_data(context.node_config, settings)
    try:
        update = run_task_within_memory(unpack_task(message.content), data, settings)
    except DivergedError as error:
        return _reply(message, error)
    return _reply(message, update)


def answer_together(
    messages: Sequence[Message], contexts: Sequence[Context]
) -> list[Message | None]:
    """Answer what many clients of this process were sent.

    Clients that train the same modalities train together, as many as the experiment's
    ``packed_clients`` allows (:mod:`client_app.packed`).

    Parameters
    ----------
    messages : sequence of Message
        One for each client.
    contexts : sequence of Context
        Of these clients.

    Returns
    -------
    list of Message or None
        The replies, in the messages' order; None for those whom the app has to answer one by one.
        What one client raises is the error in its reply.
    """
    replies: dict[int, Message] = {}
    for tasks in _packable(messages):
        replies |= _packed_replies(tasks, messages, contexts)
    return [replies.get(place) for place in range(len(messages))]


def _packable(messages: Sequence[Message]) -> list[dict[int, Task]]:
    """Group training tasks of the same settings and modalities; each by its message's place."""
    groups: defaultdict[tuple[ClientSettings, tuple[str, ...]], dict[int, Task]] = defaultdict(dict)
    for place, message in enumerate(messages):
        if message.metadata.message_type != "train":
            continue
        with suppress(Exception):  # the client that answers alone says what is wrong
            settings = _told(message)
            if settings.packed_clients > 1:
                task = unpack_task(message.content)
                groups[settings, task.orders.modalities][place] = task
    return [tasks for tasks in groups.values() if len(tasks) > 1]


def _packed_replies(
    tasks: dict[int, Task], messages: Sequence[Message], contexts: Sequence[Context]
) -> dict[int, Message]:
    """Train clients pack by pack; return replies by place, of none that have to answer alone."""
    first, task = next(iter(tasks.items()))
    try:
        settings = _settings(messages[first], contexts[first])
    except ValueError:
        return {}
    if fault := packing_fault(settings, task.orders.modalities):
        _say_once(fault)
        return {}
    torch.set_num_threads(settings.threads)
    data: dict[int, LocalData] = {}
    for place in tasks:
        with suppress(Exception):
            own = local_data(contexts[place].node_config, settings)
            if own.gaps(task.orders.modalities):  # masks do not pass through ``vmap``
                _say_once("those whose samples lack modalities cannot be packed")
            else:
                data[place] = own
    # Clients of like size take most of their steps together.
    places = sorted(data, key=lambda place: len(data[place]))
    size = settings.packed_clients
    replies: dict[int, Message] = {}
    for pack in (places[start : start + size] for start in range(0, len(places), size)):
        if len(pack) == 1:
            continue
        try:
            outcomes = train_together([tasks[p] for p in pack], [data[p] for p in pack], settings)
        except Exception as error:
            _say_once(str(error))
            break
        replies |= {p: _reply(messages[p], o) for p, o in zip(pack, outcomes, strict=True)}
    return replies


def _reply(message: Message, outcome: Update | Exception) -> Message:
    if isinstance(outcome, Update):
        return Message(pack_update(outcome), reply_to=message)
    if isinstance(outcome, DivergedError):
        # Nothing is wrong with the app: the server is told in a line, without Flower's traceback.
        log.warning("%s", outcome)
    reason = without_paths(str(outcome)) or type(outcome).__name__
    return Message(Error(code=0, reason=reason), reply_to=message)


@lru_cache
def _say_once(fault: str) -> None:
    log.warning("packed_clients: clients train one by one: %s", fault.strip().split("\n")[0])


def _told(message: Message) -> ClientSettings:
    return read_settings(str(message.content.config_records["config"]["settings"]))


def _settings(message: Message, context: Context) -> ClientSettings:
    """Read what the server tells everybody, within this node's bounds.

    This process may know no plug-in yet.

    Raises
    ------
    ValueError
        If this client lacks one, or has another version, or its node's configuration is of no use.
    """
    settings, config = _told(message), context.node_config
    try:
        check_plug_ins(settings.plugins, _importable(config))
        return on_node(settings, config)
    except ValueError as error:
        name = config.get("client-id", config.get("partition-id", "of no name"))
        raise ValueError(f"client '{name}': {error}") from None


def _importable(node_config: Mapping[str, Any]) -> Collection[str] | None:
    """Modules that a server may name for import: all in a simulation, else what the node lists."""
    if "partition-id" in node_config:
        return None
    return [m.strip() for m in str(node_config.get("plugins", "")).split(",") if m.strip()]
