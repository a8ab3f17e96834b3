"""Settings of the whole test run, and what tests of different folders share."""

import os
from collections.abc import Iterator
from pathlib import Path

# The tensors are tiny: more threads only wait for each other, here and in the programs that tests
# start, of which there are more than cores.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is prepared lies in a folder of the test run: Ray's processes look there as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BMSFED_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray with two cores: grids leave it to whoever began with it.

    Mark what uses it ``xdist_group("ray")``: one for all of them, in one process.
    """
    import ray

    from bmsfed_app.engine.cluster import PATIENT

    options = {"include_dashboard": False, "log_to_driver": False, "_system_config": PATIENT}
    ray.init("local", num_cpus=2, object_store_memory=2**28, **options)
    yield
    ray.shutdown()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for, and begin with the longest of the others.

    xdist takes groups in the order of their first tests. Tests that start programs run where
    ``-m`` says so, or files are named; the long half of the faults where ``-m`` says so.
    """
    items.sort(key=lambda item: not item.get_closest_marker("e2e"))
    asked = config.option.markexpr
    marks = {"e2e", "long"}
    if "long" in asked or "faults" in asked:
        marks = set()
    elif "e2e" in asked or _named(config):
        marks = {"long"}
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _named(config: pytest.Config) -> bool:
    """Whether files, or folders, were named; workers of xdist are always told a folder."""
    whole = {config.rootpath, config.rootpath / "tests"}
    return any(Path(name.partition("::")[0]).absolute() not in whole for name in config.args)
