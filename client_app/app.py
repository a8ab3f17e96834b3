"""The Flower ClientApp: introduces itself, measures, trains."""

from __future__ import annotations

import logging

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from bmsfed_app import __version__
from bmsfed_app.plugins import check_plug_ins
from bmsfed_app.settings import ClientSettings, read_settings
from client_app.data import local_data
from client_app.divergence import DivergedError
from client_app.training import run_task
from strategies.protocol import pack_enrolment, pack_update, unpack_task

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

app = ClientApp()


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """Answer who this client is and what it holds."""
    settings = _settings(message, context)
    data = local_data(context.node_config, settings)
    who, network = data.client_id, settings.network
    if fault := network.batch_fault(who, data.modalities, len(data), settings.batch_size):
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
        update = run_task(unpack_task(message.content), data, settings)
    except DivergedError as error:
        # Nothing is wrong with the app: the server is told in a line, without Flower's traceback.
        log.warning("%s", error)
        return Message(Error(code=0, reason=str(error)), reply_to=message)
    return Message(pack_update(update), reply_to=message)


def _settings(message: Message, context: Context) -> ClientSettings:
    """Read what the server tells everybody; this process may know no plug-in yet.

    Raises
    ------
    ValueError
        If this client lacks one, or has another version.
    """
    settings = read_settings(str(message.content.config_records["config"]["settings"]))
    try:
        check_plug_ins(settings.plugins)
    except ValueError as error:
        config = context.node_config
        name = config.get("client-id", config.get("partition-id", "of no name"))
        raise ValueError(f"client '{name}': {error}") from None
    return settings
