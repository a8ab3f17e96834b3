"""One Ray for all tests of engines in a process; mark them ``xdist_group("ray")``."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray with two cores: grids leave it to whoever began with it."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    yield
    ray.shutdown()
