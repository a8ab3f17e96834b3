"""Running anybody's ServerApp over a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp


def run_apps(
    server_app: ServerApp, grid: Grid, run_config: Mapping[str, Any] | None = None
) -> Context:
    """Run a ServerApp to its end, in this thread.

    Parameters
    ----------
    server_app : ServerApp
        Of either of Flower's interfaces.
    grid : Grid
        An engine; its clients have the ClientApp.
    run_config : mapping, optional
        What ``flwr run`` would read from ``pyproject.toml``.

    Returns
    -------
    Context
        The ServerApp's, with the state that it left there.
    """
    context = Context(grid.run.run_id, 0, {}, RecordDict(), dict(run_config or {}))
    server_app(grid, context)
    return context
