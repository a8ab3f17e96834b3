"""A process of Ray's in which simulated clients work."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from bmsfed_app.engine.bundle import Bundle, loads
from bmsfed_app.engine.work import Clients, Together
from strategies.local_grid import act_as_a_run


class Worker:
    """Answers for any client, one call after the other.

    Parameters
    ----------
    app : bytes
        Pickled ClientApp, and what answers several messages at once or None.
    total : int
        Clients in all.
    run_config : dict
    path : list of str
        Where the app's modules are found, besides here.
    folder : str
        What relative paths are relative to.
    """

    def __init__(
        self, app: bytes, total: int, run_config: dict[str, Any], path: list[str], folder: str
    ) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        if os.path.isdir(folder):  # not on another machine
            os.chdir(folder)
        act_as_a_run()
        self._app = app
        self._about = total, run_config
        self._clients: Clients | None = None

    def ready(self) -> int:
        """Load the app, and return this process's id."""
        if self._clients is None:
            client_app, together = _unpickled(self._app)
            self._clients = Clients(client_app, *self._about, together)
        return os.getpid()

    def answer(
        self, messages: bytes, arrays: Sequence[NDArray[Any]], states: bytes
    ) -> tuple[bytes, list[NDArray[Any]], bytes]:
        """Let some clients answer.

        Parameters
        ----------
        messages : bytes
            One per client.
        arrays : sequence of array
            The messages' arrays; read-only.
        states : bytes
            What the clients' contexts keep, by node id.

        Returns
        -------
        bytes
            Answers.
        list of array
            The answers' arrays.
        bytes
            What contexts keep now.
        """
        self.ready()
        assert self._clients is not None
        self._clients.states = pickle.loads(states)
        done = self._clients.answer(loads(messages, arrays))
        bundle = Bundle()
        return bundle.dumps(done), bundle.arrays, pickle.dumps(self._clients.states)


def pickled(app: Any, together: Together | None) -> bytes:
    """Pickle an app; functions that no module holds, as in a notebook, go along whole."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps((app, together))
    return data


def _unpickled(data: bytes) -> Any:
    return pickle.loads(data)
