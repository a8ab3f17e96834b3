"""What both engines promise to Flower's ServerApps; Ray is started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from bmsfed_app.engine import EngineError, InlineGrid, run_apps
from bmsfed_app.engine.base import SimulationGrid
from strategies.federation.lazy_array import LazyArray, record_of
from tests.engine.apps import app

CLIENTS = 6
ENGINES = ["inline", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))]


@pytest.fixture(params=ENGINES)
def grid(request: pytest.FixtureRequest) -> Iterator[SimulationGrid]:
    with engine(request) as made:
        yield made


def engine(request: pytest.FixtureRequest, **options: Any) -> SimulationGrid:
    if request.param == "inline":
        return InlineGrid(app, CLIENTS, **options)
    request.getfixturevalue("ray_cluster")
    from bmsfed_app.engine import RayGrid

    return RayGrid(app, CLIENTS, cpus=1, **options)


def asked(grid: SimulationGrid, kind: str = "train", **orders: Any) -> dict[int, Message]:
    """Ask every client, and return the replies by ``partition-id``."""
    arrays = record_of({"w": LazyArray(np.full((500, 500), 2, np.float32))})
    content = {"arrays": arrays, "config": ConfigRecord(orders)}
    messages = [Message(RecordDict(content), node, kind) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages)
    return {r.metadata.src_node_id - 1: r for r in replies}


def test_every_client_gets_the_arrays_and_answers_with_its_own(grid: SimulationGrid) -> None:
    replies = asked(grid)
    assert sorted(replies) == list(range(CLIENTS))
    for number, reply in replies.items():
        assert (reply.content.array_records["arrays"]["w"].numpy() == 2 + number).all()
        assert reply.content.metric_records["metrics"]["number"] == number


def test_a_context_lasts_from_message_to_message_and_mods_run(grid: SimulationGrid) -> None:
    for turn in (1, 2, 3):
        replies = asked(grid)
        seen = {r.content.metric_records["metrics"]["messages"] for r in replies.values()}
        assert seen == {turn}


def test_arrays_that_a_context_keeps_come_back(grid: SimulationGrid) -> None:
    asked(grid, "evaluate")
    for reply in asked(grid, "evaluate").values():
        assert (reply.content.array_records["arrays"]["w"].numpy() == 2).all()


def test_a_client_that_raises_is_an_error_of_its_own(
    grid: SimulationGrid, caplog: pytest.LogCaptureFixture
) -> None:
    replies = asked(grid, **{"raise": 3})
    assert {n for n, r in replies.items() if r.has_error()} == {3}
    assert replies[3].error.reason == "client 3 cannot"
    assert caplog.text.count("Traceback") == 1
    asked(grid, **{"raise": 3})
    assert caplog.text.count("Traceback") == 1  # said once


def test_what_is_no_reply_is_an_error_of_its_client(grid: SimulationGrid) -> None:
    replies = asked(grid, other=3)
    assert {n for n, r in replies.items() if r.has_error()} == {3}
    assert "answers another one: make it with" in replies[3].error.reason
    for reply in asked(grid, "query.nothing").values():
        assert "returned NoneType, not a Message: end its function with" in reply.error.reason


def test_a_node_that_is_not_there_never_answers(grid: SimulationGrid) -> None:
    message = Message(RecordDict(), CLIENTS + 1, "train")
    assert list(grid.send_and_receive([message], timeout=0)) == []


def test_two_grids_in_one_process(request: pytest.FixtureRequest, grid: SimulationGrid) -> None:
    request.param = "ray" if type(grid).__name__ == "RayGrid" else "inline"
    asked(grid)
    with InlineGrid(app, 2) as other:
        assert sorted(asked(other)) == [0, 1]
        assert asked(other)[0].content.metric_records["metrics"]["messages"] == 2
    assert asked(grid)[0].content.metric_records["metrics"]["messages"] == 2


def test_other_peoples_apps_run(grid: SimulationGrid) -> None:
    server_app = ServerApp()
    found: dict[str, Any] = {}

    @server_app.main()
    def main(grid: Any, context: Any) -> None:
        strategy = FedAvg(fraction_evaluate=0, weighted_by_key="number")
        start = ArrayRecord([np.zeros((3, 3), np.float32)])
        rounds = int(context.run_config["rounds"])
        found["result"] = strategy.start(grid, start, num_rounds=rounds)

    run_apps(server_app, grid, {"rounds": 2})
    # Weighted by their numbers: 0 + 1·1 + 2·2 + … + 5·5 = 55 of 15, twice.
    np.testing.assert_allclose(found["result"].arrays["0"].numpy(), 2 * 55 / 15, rtol=1e-5)


def test_no_clients_is_refused() -> None:
    with pytest.raises(EngineError, match="at least one"):
        InlineGrid(ClientApp(), 0)
