"""What a client says of its errors: file names, but no folders of its machine."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial

from flwr.app import Context, Error, Message

log = logging.getLogger("flwr")  # Flower's own: it shows where its users look

#: Absolute paths, or those from a home folder: in quotes with whatever is in them, or without a
#: blank. What follows a word, a dot, a colon or a slash is none: "and/or", "https://...".
_QUOTED = re.compile(r"""(['"])((?:~?/|[A-Za-z]:[\\/]|\\\\)[^'"\n]*)\1""")
_BARE = re.compile(r"""(?<![\w.:/\\])(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^\s'"<>|,;:()]+""")


class ClientError(RuntimeError):
    """What a client raised, in words that may leave its machine."""


def without_paths(text: str, *folders: str) -> str:
    """Return a text in which file names stand for whole paths.

    Parameters
    ----------
    text : str
    folders : str
        Paths that are replaced wherever they stand, relative ones too.

    Examples
    --------
    >>> without_paths("no '/home/ann/my data/train.csv' (see ~/notes/readme.md or a/b)")
    "no 'train.csv' (see readme.md or a/b)"
    """
    for folder in filter(None, folders):
        inside = re.compile(re.escape(folder.rstrip("/\\")) + r"(?![\w.-])([/\\]?)")
        text = inside.sub(partial(_within, _name(folder)), text)
    text = _QUOTED.sub(lambda found: found[1] + _name(found[2]) + found[1], text)
    return _BARE.sub(lambda found: _name(found[0]), text)


def _within(name: str, found: re.Match[str]) -> str:
    """What stands for a folder: nothing before what is in it."""
    return "" if found[1] else name


def _name(path: str) -> str:
    """Return the last part of a path of whatever system, with the full stop behind a sentence."""
    return re.split(r"[\\/]", path.rstrip("/\\"))[-1]


def redacting(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Answer as the app does, but send no path of this machine in an error (a Flower mod).

    What the app raises is raised on with file names in place of paths; the whole text stays in
    this client's log.
    """
    folder = str(context.node_config.get("data-dir", ""))
    try:
        reply = call_next(message, context)
    except Exception as error:
        full = str(error)
        # Flower tells the server the exception's name and text; both are settled here.
        said = without_paths(full, folder)
        if said == full:
            raise
        log.error("%s: %s", type(error).__name__, full)
        text = f"{type(error).__name__}: {said}" if isinstance(error, OSError) else said
        raise ClientError(text).with_traceback(error.__traceback__) from None
    if reply.has_error():
        full = reply.error.reason or ""
        said = without_paths(full, folder)
        if said != full:
            log.error("%s", full)
            return Message(Error(code=reply.error.code, reason=said), reply_to=message)
    return reply
