"""Small ClientApps whose clients do all that an engine must bear."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies.federation.lazy_array import LazyArray, record_of

#: What comes after a mod.
Handler = Callable[[Message, Context], Message]


def count_mod(message: Message, context: Context, call_next: Handler) -> Message:
    """Count a client's messages in its context, and say how many there were."""
    kept = context.state.setdefault("seen", MetricRecord({"messages": 0}))
    kept["messages"] += 1
    reply = call_next(message, context)
    if reply is None:
        return reply
    for record in reply.content.metric_records.values():
        record["messages"] = kept["messages"]
    return reply


app = ClientApp(mods=[count_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add one's number to the arrays, or do what the config asks for."""
    orders = message.content.config_records.get("config", ConfigRecord({}))
    number = int(context.node_config["partition-id"])
    if orders.get("other") == number:
        return Message(RecordDict(), 1, "train")
    if orders.get("raise") == number:
        raise ValueError(f"client {number} cannot")
    if orders.get("die") == number:
        os._exit(1)
    if orders.get("hang") == number:
        time.sleep(3600)
    arrays = {
        name: LazyArray(value.numpy() + np.float32(number))
        for name, value in message.content.array_records["arrays"].items()
    }
    about = {"process": os.getpid(), "number": number}
    return Message(
        RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord(about)}),
        reply_to=message,
    )


@app.query("nothing")
def nothing(message: Message, context: Context) -> Any:
    """Return no reply."""


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Keep the arrays received in the context, and answer with those kept before."""
    before = context.state.get("kept", ArrayRecord())
    context.state["kept"] = message.content.array_records["arrays"]
    return Message(RecordDict({"arrays": before}), reply_to=message)
