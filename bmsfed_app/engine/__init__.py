"""Where simulated clients work: in this process, or in processes that Ray looks after.

Both engines are Flower grids, so that any ServerApp and any ClientApp run on them::

    from bmsfed_app.engine import InlineGrid, RayGrid, run_apps

    with RayGrid(client_app, 100, cpus=1) as grid:
        run_apps(server_app, grid, {"num-server-rounds": 3})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmsfed_app.engine.apps import run_apps
from bmsfed_app.engine.inline import InlineGrid
from bmsfed_app.engine.work import EngineError, Work

if TYPE_CHECKING:
    from bmsfed_app.engine.ray_grid import RayGrid as RayGrid


def __getattr__(name: str) -> Any:
    """Load ray just for who asks for its grid."""
    if name == "RayGrid":
        from bmsfed_app.engine.ray_grid import RayGrid

        return RayGrid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["EngineError", "InlineGrid", "RayGrid", "Work", "run_apps"]
