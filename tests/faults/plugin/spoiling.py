"""A plug-in that spoils what one node answers to training: how, says the file named by $SPOILED.

It is imported by every process of a run under `plugins=[spoiling]`, and does something in the
ClientApps of those nodes alone that have the variable. The file is read for each answer.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np


def first(update):
    """Name of the first array of an update."""
    return min(update.arrays)


def with_nan(update):
    update.arrays[first(update)].flat[0] = np.nan


def of_another_shape(update):
    update.arrays[first(update)] = np.zeros((3, 1), np.float32)


def without_an_array(update):
    del update.arrays[first(update)]


def with_an_extra_array(update):
    update.arrays["encoders.taste.weight"] = np.zeros(3, np.float32)


def scaled(update):
    for name, value in update.arrays.items():
        if value.dtype.kind == "f":
            update.arrays[name] = value * value.dtype.type(1e6)


def of_very_many_samples(update):
    update.num_samples = 10**15


def that_protobuf_cannot_parse(update):
    from flwr.app import ConfigRecord

    from strategies._flower import private

    add_header_to_object_body = private(
        "flwr.supercore.inflatable.inflatable_object:add_header_to_object_body"
    )

    ConfigRecord.deflate = lambda self: add_header_to_object_body(b"\xff\xff\xff", self)


def whose_process_dies(update):
    os._exit(9)


def never(update):
    """Say that training is done, and hang until somebody kills this process."""
    Path(os.environ["SPOILED"]).with_suffix(".hangs").write_text(str(os.getpid()))
    time.sleep(3600)


def told():
    return Path(os.environ["SPOILED"]).read_text()


def spoil_answers(app):
    pack = app.pack_update

    def pack_spoiled(update):
        if told() and update.arrays:
            globals()[told()](update)
        return pack(update)

    app.pack_update = pack_spoiled
    if told() == "of_another_version":
        app.__version__ = "0.0.0"


def of_another_version(update):
    """Nothing: such a node is refused before it is asked for an update."""


if "SPOILED" in os.environ and "client_app.app" in sys.modules:
    spoil_answers(sys.modules["client_app.app"])
