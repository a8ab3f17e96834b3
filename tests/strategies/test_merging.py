"""A method that stumbles over one answer goes on without it, and without a trace of it."""

from collections.abc import Sequence

import numpy as np
import pytest

from strategies import Arrays, FedAvg, FederationError, Update
from strategies.testing import FakeGrid
from tests.strategies.test_federation import client, federate, names


class Stumbling(FedAvg):
    """Keeps something of every answer, and cannot take those of 7 samples."""

    def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
        for update in updates:
            self.state.memory.setdefault(update.client_id, {})["seen"] = np.ones(1, np.float32)
        if any(u.num_samples == 7 for u in updates):
            raise ZeroDivisionError("seven")
        return super().aggregate_fit(server_round, updates)


def seven(update: Update) -> None:
    update.num_samples = 7


def test_the_client_is_left_out_by_name_and_leaves_nothing() -> None:
    handlers = {n: client(n) for n in names(3)}
    without, _ = federate(Stumbling(2), FakeGrid({n: handlers[n] for n in names(2)}), rounds=1)
    handlers["client-2"] = client("client-2", change=seven)
    state, recorder = federate(Stumbling(3), FakeGrid(handlers), rounds=1)
    [report] = recorder.reports
    assert report.failures == {"client-2": "the method cannot use its answer: seven"}
    assert sorted(state.memory) == names(2)
    for name, value in state.arrays.items():
        assert value.tobytes() == without.arrays[name].tobytes()


def test_an_error_of_the_method_is_no_clients() -> None:
    class Broken(FedAvg):
        def aggregate_fit(self, server_round: int, updates: Sequence[Update]) -> Arrays:
            if len(updates) > 1:
                raise ZeroDivisionError("only together")
            return super().aggregate_fit(server_round, updates)

    strategy = Broken(3)
    with pytest.raises(ZeroDivisionError, match="only together"):
        federate(strategy, FakeGrid({n: client(n) for n in names(3)}), rounds=1)
    assert strategy.state.round == 0


def test_an_average_that_overflows_ends_the_run_and_keeps_the_model() -> None:
    def huge(update: Update) -> None:
        update.arrays = {n: np.full_like(v, 3e38) for n, v in update.arrays.items()}

    class Doubling(FedAvg):
        def aggregate(self, updates: Sequence[Update]) -> Arrays:
            return {n: v * 2 for n, v in super().aggregate(updates).items()}

    strategy = Doubling(3)
    handlers = {n: client(n, change=lambda u: huge(u) if u.arrays else None) for n in names(3)}
    with pytest.raises(FederationError, match=r"average of 'encoders.a.w' holds NaN or infinity"):
        federate(strategy, FakeGrid(handlers), rounds=1)
    assert strategy.state.round == 0
    assert all(np.isfinite(v).all() for v in strategy.state.arrays.values())
