"""Out of memory: the batch is halved once, and the answer says so."""

from typing import Any

import pytest
import torch

from bmsfed_app.models import MultiModalNetwork, build_network
from client_app.memory import run_task_within_memory
from client_app.training import run_task
from strategies import Orders, Task
from tests import synthetic

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
]


def task() -> Task:
    arrays = {n: v.numpy() for n, v in build_network(synthetic.spec(), 0).state_dict().items()}
    return Task(Orders("train", tuple(synthetic.WIDTHS)), arrays)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, largest: int, error: Exception) -> None:
    """Let the network have no room for more than so many samples at once."""
    forward = MultiModalNetwork.forward

    def limited(self: MultiModalNetwork, inputs: dict[str, torch.Tensor]) -> Any:
        if self.training and len(next(iter(inputs.values()))) > largest:
            raise error
        return forward(self, inputs)

    monkeypatch.setattr(MultiModalNetwork, "forward", limited)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_the_batch_is_halved_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    data = synthetic.client()
    wanted = run_task(task(), data, synthetic.settings(batch_size=10))
    short_of_memory(monkeypatch, 10, error)
    update = run_task_within_memory(task(), data, synthetic.settings(batch_size=20))
    assert update.metrics["batch_halved"] == 10
    assert update.metrics["steps"] == 6
    for name, value in wanted.arrays.items():  # as if the experiment had said 10
        assert (update.arrays[name] == value).all()


def test_half_a_batch_that_is_too_large_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short_of_memory(monkeypatch, 5, MemoryError())
    with pytest.raises(MemoryError, match=r"client 'client-0' ran out .* of 20, and of 10: set"):
        run_task_within_memory(task(), synthetic.client(), synthetic.settings(batch_size=20))


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 5, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        run_task_within_memory(task(), synthetic.client(), synthetic.settings(batch_size=20))


def test_a_client_with_memory_enough_says_nothing_of_it() -> None:
    update = run_task_within_memory(task(), synthetic.client(), synthetic.settings())
    assert "batch_halved" not in update.metrics
