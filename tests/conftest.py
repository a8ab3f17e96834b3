"""Settings of the whole test run."""

import pytest
import torch

# The tensors are tiny: more threads only wait for each other.
torch.set_num_threads(1)

#: Of pyproject's `-n`: more than the cores of a small machine, as those that start processes wait.
WORKERS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that start processes: they are long, and must not be left over last.

    Every worker gets its share of the list at first, and later steals from the others' ends. The
    tests on one federation of SuperNodes head the first share, the others two more.
    """
    processes = [i for i in items if i.get_closest_marker("e2e")]
    nodes = [i for i in processes if "federation" in getattr(i, "fixturenames", ())]
    simulated = [i for i in processes if "whole" in getattr(i, "fixturenames", ())]
    others = [i for i in processes if i not in nodes and i not in simulated]
    rest = [i for i in items if i not in processes]
    shares: list[pytest.Item] = []
    for worker, long in enumerate([nodes, simulated, others, []]):
        size = (len(items) - len(shares)) // (WORKERS - worker)
        fill = max(size - len(long), 0)
        shares += [*long, *rest[:fill]]
        rest = rest[fill:]
    items[:] = [*shares, *rest]
