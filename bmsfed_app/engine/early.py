"""Ray on its way while the rest of a program still loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bmsfed_app.engine.cluster import Cluster


@contextmanager
def early_cluster(wanted: bool, address: str = "") -> Iterator[Callable[[], Cluster] | None]:
    """Start or join Ray in the background.

    Parameters
    ----------
    wanted : bool
        False does nothing.
    address : str, optional
        Of a cluster to join.

    Yields
    ------
    callable or None
        Waits for the cluster; it raises ``EngineError`` where there is none. A cluster is left at
        the end.
    """
    if not wanted:
        yield None
        return
    with ThreadPoolExecutor(1, "ray") as pool:
        joined = pool.submit(_join, address)
        try:
            yield joined.result
        finally:
            if joined.exception() is None:
                joined.result().leave()


def _join(address: str) -> Cluster:
    from bmsfed_app.engine.cluster import Cluster  # loads ray

    return Cluster(address)
