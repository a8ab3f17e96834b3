"""A device's own log: a line for every message that it answered."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flwr.app import Context, Message

from bmsfed_app.paths import home
from strategies.protocol import unpack_orders

#: A file's size in bytes, after which another is begun, and how many older ones are kept.
_SIZE, _OLDER = 1_000_000, 3

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def logged(
    message: Message, context: Context, answer: Callable[[Message, Context], Message]
) -> Message:
    """Answer a message, and log it: a mod for Flower's ClientApp.

    The line has the round, the kind of message, the modalities, seconds (without those that the
    process took to start), and what went wrong. It goes to ``<client-id>.log`` in the node
    configuration's ``log-dir``, by default ``logs`` below ``$BMSFED_HOME``. Simulated clients,
    which the run's own log tells of, have none.
    """
    if "partition-id" in context.node_config:
        return answer(message, context)
    started = time.monotonic()
    try:
        reply = answer(message, context)
    except Exception as error:
        _write(message, context, started, f"{type(error).__name__}: {error}")
        raise
    _write(message, context, started, str(reply.error.reason) if reply.has_error() else "")
    return reply


def log_file(context: Context) -> Path:
    """Return where a node's lines go; its client id names a file there and nowhere else."""
    config = context.node_config
    folder = str(config.get("log-dir", ""))
    name = re.sub(r"[^\w.-]+", "_", str(config.get("client-id", "unnamed"))).strip(".")
    return (Path(folder).expanduser() if folder else home() / "logs") / f"{name or 'unnamed'}.log"


def _write(message: Message, context: Context, started: float, error: str) -> None:
    """Append a line; that it cannot be written keeps no client from answering."""
    seconds, modalities = time.monotonic() - started, ""
    with suppress(Exception):  # enrolment has none; nor need what another app sends
        orders = unpack_orders(message.content.config_records["config"])
        modalities = " " + "+".join(orders.modalities)
    meta = message.metadata
    line = f"round {meta.group_id}: {meta.message_type}{modalities}, {seconds:.1f} s"
    level = logging.ERROR if error else logging.INFO
    with suppress(OSError):
        file = log_file(context)
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=_SIZE, backupCount=_OLDER, encoding="utf-8")
        handler.setFormatter(logging.Formatter(_FORMAT))
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        logger = logging.Logger("bmsfed")
        logger.addHandler(handler)
        logger.log(level, "%s", " ".join(f"{line}{': ' if error else ''}{error}".split()))
        handler.close()
