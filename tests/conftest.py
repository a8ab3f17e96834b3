"""Settings of the whole test run."""

import pytest
import torch

# The tensors are tiny: more threads only wait for each other.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that start processes: they are long, and must not be left over last.

    Two workers get half of the list each, and later steal from its end. Those on one federation of
    SuperNodes head the first half, the others the second.
    """
    processes = [i for i in items if i.get_closest_marker("e2e")]
    nodes = [i for i in processes if "federation" in getattr(i, "fixturenames", ())]
    others = [i for i in processes if i not in nodes]
    rest = [i for i in items if i not in processes]
    half = max(len(items) // 2 - len(nodes), 0)
    items[:] = [*nodes, *rest[:half], *others, *rest[half:]]
