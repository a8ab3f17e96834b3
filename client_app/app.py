"""The Flower ClientApp: introduces itself, measures, trains."""

from __future__ import annotations

import json

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from bmsfed_app import __version__
from bmsfed_app.settings import ClientSettings
from client_app.data import LocalData, local_data
from client_app.training import run_task
from strategies.protocol import pack_enrolment, pack_update, unpack_task

app = ClientApp()


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """Answer who this client is and what it holds."""
    settings = json.loads(str(message.content.config_records["config"]["settings"]))
    data = local_data(context.node_config, ClientSettings.from_json(settings))
    return Message(pack_enrolment(data.info(), __version__), reply_to=message)


@app.query("probe")
def probe(message: Message, context: Context) -> Message:
    """Answer signatures, prototypes and ratios at the received model."""
    return _answer(message, context, probe=True)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the modalities assigned and answer with the parts that were trained."""
    return _answer(message, context, probe=False)


def _answer(message: Message, context: Context, *, probe: bool) -> Message:
    task = unpack_task(message.content)
    settings = ClientSettings.from_json(task.settings)
    torch.set_num_threads(settings.threads)
    data: LocalData = local_data(context.node_config, settings)
    return Message(pack_update(run_task(task, data, settings, probe=probe)), reply_to=message)
