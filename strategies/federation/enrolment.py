"""How a node introduces itself: the question who it is, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from ..messages import ClientInfo
from .strict import LONGEST_NAME, a_count, a_name, names, read_json
from .wire import PROTOCOL_VERSION


@dataclass(frozen=True)
class Enrolment:
    """A node's introduction.

    Attributes
    ----------
    info : ClientInfo
        Who it is; no modalities mean all that the model has.
    protocol : int
        Its protocol version.
    app_version : str
        Its app's version; "" for an app that is not ours.
    native : bool
        Whether it understands probes and answers with measurements; others just train.
    """

    info: ClientInfo
    protocol: int
    app_version: str
    native: bool


def ask_enrolment(settings: Mapping[str, Any]) -> RecordDict:
    """Return the question who a node is, with what the experiment tells everybody."""
    return RecordDict({"config": ConfigRecord({"settings": json.dumps(dict(settings))})})


def pack_enrolment(info: ClientInfo, app_version: str, *, native: bool = True) -> RecordDict:
    """Turn a client's introduction into the content of a message; see :class:`Enrolment`."""
    header = json.dumps(
        {
            "native": native,
            "protocol": PROTOCOL_VERSION,
            "app_version": app_version,
            "client_id": info.client_id,
            "modalities": info.modalities,
            "num_samples": info.num_samples,
            "class_counts": info.class_counts,
        }
    )
    return RecordDict({"config": ConfigRecord({"enrolment": header})})


def unpack_enrolment(content: RecordDict) -> Enrolment:
    """Read an introduction.

    Raises
    ------
    ValueError, KeyError
        If it is none, or a number or a name in it is out of bounds.
    """
    header = read_json(content.config_records["config"]["enrolment"])
    counts = header["class_counts"]
    if not isinstance(counts, list):
        raise ValueError("its class counts are no list")
    info = ClientInfo(
        client_id=a_name(header["client_id"], "its client id"),
        modalities=names(header["modalities"], "its modalities"),
        num_samples=a_count(header["num_samples"], "sample count"),
        class_counts=tuple(a_count(c, "a class count") for c in counts),
    )
    if sum(info.class_counts) > info.num_samples:  # rare classes may be withheld
        raise ValueError(
            f"its class counts sum to {sum(counts)}, but it says it has {info.num_samples} samples"
        )
    return Enrolment(
        info,
        a_count(header["protocol"], "its protocol"),
        str(header["app_version"])[:LONGEST_NAME],
        header.get("native", True) is True,
    )
