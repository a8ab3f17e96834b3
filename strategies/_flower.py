"""All that depends on Flower's version: which ones serve, and what is not its public interface.

Nothing else of this project imports a name that Flower does not export, or relies on its wording;
``tests/test_flower_version.py`` checks that, and says of each name here whether it is still there.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

#: The oldest Flower whose interfaces are used, and the newest that the tests have passed on.
MINIMUM, TESTED = (1, 42), (1, 42)

#: Names that Flower does not export, and what here needs them.
PRIVATE = {
    "flwr.supercore.task_identity:TaskIdentity": "every grid without Flower's processes",
    "flwr.supercore.run:Run": "every grid without Flower's processes",
    "flwr.proto.node_pb2:NodeInfo": "FakeGrid with nodes that have keys",
    "flwr.common.serde:recorddict_from_proto": "the tests' answers whose bytes are damaged",
    "flwr.common.serde:recorddict_to_proto": "the tests' answers whose bytes are damaged",
    "flwr.supercore.inflatable.inflatable_object:add_header_to_object_body": (
        "the tests' answers that cannot be parsed"
    ),
    "flwr.cli.supernode.register:try_load_public_key": "the tests of deploy/node-key.sh",
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": "the tests of deploy/node-key.sh",
    "flwr.common.config:parse_config_args": "bmsfed preflight --node-config",
    "flwr.compat.common.recorddict_compat:getpropertiesres_to_recorddict": (
        "strategies.client.ModalityMod before a client of the classic interface"
    ),
    "flwr.server.compat.grid_client_proxy:GridClientProxy": (
        "the tests' run of a classic strategy without Flower's processes"
    ),
}

#: flwr has no error code for a question that an app has no function for; these are the words of
#: ClientApps with decorated functions and with ``client_fn``.
UNKNOWN_QUESTION = ("No query function registered with name", "Invalid message type: query.")
#: flwr's error codes for messages that came to nothing (3 and 4: expired or lost on the way, 5: its
#: node is gone, 8: its ClientApp died), as against those of clients that answered with an error.
LOST = (3, 4, 5, 8)
#: How flwr's simulation begins the traceback that it logs for a client that raised.
CLIENT_RAISED = "An exception was raised when processing a message"


def check_flower(found: str) -> None:
    """Raise if a version of flwr is too old; warn if it is newer than any that was tested.

    Raises
    ------
    ImportError
        Naming both versions and the remedy.
    """
    numbers = tuple(int(part) for part in found.split(".")[:2])
    oldest, newest = (".".join(map(str, numbers)) for numbers in (MINIMUM, TESTED))
    if numbers < MINIMUM:
        raise ImportError(
            f"strategies needs flwr {oldest} or newer, flwr {found} is installed: run "
            f"pip install 'flwr[simulation]>={oldest}'"
        )
    if numbers > TESTED:
        warnings.warn(
            f"strategies was tested with flwr up to {newest}, flwr {found} is installed: should "
            f"something fail that did not before, try pip install 'flwr[simulation]=={newest}.*'",
            stacklevel=2,
        )


def private(path: str) -> Any:
    """Return one of the names of :data:`PRIVATE`.

    Raises
    ------
    ImportError
        Naming what cannot work without it, if this Flower lacks it.
    """
    try:
        return resolve_name(path)
    except (ImportError, AttributeError):
        newest = ".".join(map(str, TESTED))
        raise ImportError(
            f"{PRIVATE[path]} needs {path}, which flwr {version('flwr')} has not: run "
            f"pip install 'flwr[simulation]=={newest}.*'"
        ) from None


def pretend_to_be_a_task() -> None:
    """Let this process make messages, which Flower allows only inside a run."""
    task = private("flwr.supercore.task_identity:TaskIdentity")
    task.run_id, task.task_id, task.node_id = 1, 1, 1


def empty_run() -> Any:
    """Return the run that a grid without Flower's processes belongs to."""
    return private("flwr.supercore.run:Run").create_empty(1)


def set_message_id(message: Any, message_id: str) -> None:
    """Give a message its id, as Flower's grid does on sending; there is no setter."""
    message.metadata.__dict__["_message_id"] = message_id


check_flower(version("flwr"))
