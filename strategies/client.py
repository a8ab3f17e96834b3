"""The client's side for ClientApps that are not ours: a mod that speaks with the strategies.

The mod says who the client is and what it holds, hands the training function a whole model with its
assignment beside it, and cuts the answer down to what was assigned. It works with ClientApps of
either interface: functions under ``@app.train()``, and ``NumPyClient``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import Code, GetPropertiesRes, MessageTypeLegacy, Scalar, Status

from ._flower import private
from .federation.dialects import CLIENT_ID, MODALITIES, NAMES, NUM_SAMPLES, PROBING, SCORE, Parcel
from .federation.enrolment import pack_enrolment
from .federation.lazy_array import LazyArray, record_of
from .federation.wire import ENROL
from .messages import ClientInfo

_Next = Callable[[Message, Context], Message]


def describe_node(context: Context) -> ClientInfo:
    """Say who a client is by its node config.

    ``client-id`` (else ``partition-id``) names it, ``modalities`` lists what it holds, separated
    by commas; without it the client holds all that the model has.

    Raises
    ------
    ValueError
        If the node config holds neither id.
    """
    node = context.node_config
    name = node.get(CLIENT_ID, node.get("partition-id"))
    if name is None:
        raise ValueError(
            "the node config has neither 'client-id' nor 'partition-id': start the SuperNode with "
            "--node-config 'client-id=\"alice\"', or give ModalityMod a describe function"
        )
    held = tuple(m.strip() for m in str(node.get(MODALITIES, "")).split(",") if m.strip())
    return ClientInfo(str(name), held, int(node.get(NUM_SAMPLES, 1)))


class ModalityMod:
    """A client mod that lets a strategy select this client's modalities.

    Parameters
    ----------
    describe : callable, optional
        Returns who the client is, from Flower's context; by default :func:`describe_node`. The
        id must be the same whenever the client connects. No modalities mean all of the model's.

    Notes
    -----
    The training function finds in its config (``message.content["config"]``, or a ``NumPyClient``'s
    ``config``) ``modalities``: what it is to train, as a list, or joined by commas for a
    ``NumPyClient``; and ``probe``: whether the server only measures what it would learn. Parts
    that it does not need are zeros and must not be trained.

    A strategy that looks for the weak modality (BMSFed) must hear how well each one does alone: the
    answer's metrics hold positive numbers ``score.<modality>``, such as the accuracy or the mean
    probability of the true class by that modality only. Without them no modality counts as weak.

    Mods of flwr that compare the answer with the model received belong *behind* this one in the
    list of mods, so that they see both whole.

    Examples
    --------
    ::

        mod = ModalityMod(lambda context: ClientInfo("alice", ("image",), 600))
        app = ClientApp(mods=[mod])
        mod.register(app)  # not needed, and not possible, with ``client_fn``

        @app.train()
        def train(message, context):
            modalities = message.content["config"]["modalities"]
            ...
    """

    def __init__(self, describe: Callable[[Context], ClientInfo] = describe_node) -> None:
        self.describe = describe

    def register(self, app: ClientApp) -> None:
        """Let a ClientApp made of decorated functions answer who it is."""
        app.query("enrol")(self._enrol)

    def __call__(self, message: Message, context: Context, call_next: _Next) -> Message:
        """Answer, or translate what the app is asked and what it answers."""
        kind = message.metadata.message_type
        if kind == ENROL:
            return self._enrol(message, context)
        if kind == MessageTypeLegacy.GET_PROPERTIES:
            return self._properties(message, context)
        config = _config(message.content)
        if "parcel" not in config:  # of another strategy, or flwr's evaluation
            if kind == "evaluate" and MODALITIES not in config:
                held = self.describe(context).modalities
                if held:
                    config[MODALITIES] = _listed(held, message.content)
            return call_next(message, context)
        withheld = Parcel.unpack(config).withheld
        sent = _complete(message.content, config, withheld)
        answer = call_next(message, context)
        if answer.has_error() or kind == "evaluate":
            return answer
        return _cut(answer, sent, {position for position, *_ in withheld})

    def _enrol(self, message: Message, context: Context) -> Message:
        return Message(pack_enrolment(self.describe(context), "", native=False), reply_to=message)

    def _properties(self, message: Message, context: Context) -> Message:
        info = self.describe(context)
        properties: dict[str, Scalar] = {
            CLIENT_ID: info.client_id,
            MODALITIES: ",".join(info.modalities),
            NUM_SAMPLES: info.num_samples,
        }
        result = GetPropertiesRes(Status(Code.OK, "Success"), properties)
        pack = private("flwr.compat.common.recorddict_compat:getpropertiesres_to_recorddict")
        return Message(pack(result), reply_to=message)


def _config(content: RecordDict) -> ConfigRecord:
    """The config of a train or evaluate message; an empty one where there is not just one."""
    records = list(content.config_records.values())
    return records[0] if len(records) == 1 else ConfigRecord()


def _is_classic(content: RecordDict) -> bool:
    return any(name.startswith(("fitins.", "evaluateins.")) for name in content)


def _listed(modalities: tuple[str, ...], content: RecordDict) -> Any:
    return ",".join(modalities) if _is_classic(content) else list(modalities)


def _complete(
    content: RecordDict, config: ConfigRecord, withheld: list[tuple[int, str, str, list[int]]]
) -> list[str]:
    """Put zeros in place of the arrays withheld; return the keys of all, in the model's order."""
    [record] = content.array_records
    received = content.array_records[record]
    # Flower's classic interface knows arrays by their places only; names stand in the config.
    classic = _is_classic(content)
    names = json.loads(str(config[NAMES])) if classic else list(received)
    there = iter(zip(names, received.values(), strict=True))
    missing = {position: (name, dtype, shape) for position, name, dtype, shape in withheld}
    whole: dict[str, Array] = {}
    for position in range(len(names) + len(missing)):
        if position in missing:
            name, dtype, shape = missing[position]
            whole[name] = LazyArray(np.zeros(shape, dtype))
        else:
            name, whole[name] = next(there)
    if classic:
        config[NAMES] = json.dumps(list(whole))
        whole = {str(place): value for place, value in enumerate(whole.values())}
    content.array_records[record] = record_of(whole)
    return list(whole)


def _cut(answer: Message, sent: list[str], withheld: set[int]) -> Message:
    """Drop from an answer what was withheld from the client."""
    records = answer.content.array_records
    if len(records) != 1:
        return answer  # the server says what is wrong
    [key] = records
    dropped = {name for position, name in enumerate(sent) if position in withheld}
    if key.startswith("fitres.") and len(records[key]) != len(sent):
        return answer  # without names there is no telling which are which
    records[key] = record_of({n: v for n, v in records[key].items() if n not in dropped})
    return answer


__all__ = [
    "CLIENT_ID",
    "MODALITIES",
    "NUM_SAMPLES",
    "PROBING",
    "SCORE",
    "ModalityMod",
    "describe_node",
]
