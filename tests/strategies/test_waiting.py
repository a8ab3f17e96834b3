"""Clients that are slow, gone, refused or wrong: who is waited for, how long, and what is said."""

import logging
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from strategies import (
    BMSFed,
    Callback,
    ClientInfo,
    ClientReport,
    Deadline,
    DivFL,
    FedAvg,
    FederationError,
    ModalityStrategy,
    Paused,
    PowerOfChoice,
    RandomModality,
    RoundReport,
    ServerState,
    Update,
    Waiting,
)
from strategies.federation.waiting import FLOOR, LATE
from strategies.randomness import generator
from strategies.testing import FakeClock, FakeGrid
from tests.strategies.test_federation import client, initial, names


class Remote(FakeGrid):
    """As Flower's: what was sent cannot be taken back, and a node keeps its id when restarted."""

    withdraw = None  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started: dict[int, str] = {}

    def get_nodes(self) -> Iterable[Any]:
        for node in super().get_nodes():
            node.last_activated_at = self.started.get(node.node_id, "once")
            yield node

    def restart(self, name: str) -> None:
        """What the node worked on is forgotten."""
        [node] = [n for n, named in self._names.items() if named == name]
        self.started[node] = "again"
        self._free[node] = self.clock.monotonic()
        self._replies = {
            i: (at, r) for i, (at, r) in self._replies.items() if r.metadata.src_node_id != node
        }


class Watch(Callback):
    """Keeps what happened; ``after`` is called after each round with its number."""

    def __init__(self, after: Callable[[int], None] = lambda number: None) -> None:
        self.after = after
        self.reports: list[RoundReport] = []
        self.failed: list[RoundReport] = []
        self.error: BaseException | None = None
        self.asked: list[tuple[int, str, int]] = []

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        self.asked.append((server_round, phase, total))

    def after_round(self, strategy: Any, report: RoundReport) -> None:
        self.reports.append(report)
        self.after(report.round)

    def after_failure(self, strategy: Any, report: RoundReport) -> None:
        self.failed.append(report)

    def on_end(self, strategy: Any, error: BaseException | None) -> None:
        self.error = error

    def trained(self) -> list[list[str]]:
        return [sorted(c.client_id for c in r.trained) for r in self.reports]


def run(
    grid: FakeGrid,
    strategy: ModalityStrategy,
    rounds: int = 1,
    *,
    watch: Watch | None = None,
    start: ServerState | None = None,
    min_clients: int = 1,
    stop: threading.Event | None = None,
    timeout: float = 3600,
    **waiting: Any,
) -> Watch:
    watch = watch or Watch()
    strategy.run(
        grid,
        start or initial(),
        num_rounds=rounds,
        callbacks=[watch],
        min_clients=min_clients,
        timeout=timeout,
        stop=stop,
        waiting=Waiting(clock=grid.clock, **waiting),
    )
    return watch


def bad(name: str) -> Callable[[Message], RecordDict]:
    """A client that enrols, and answers nothing that could be used."""

    def spoil(update: Update) -> None:
        update.arrays = {n: np.full_like(v, np.nan) for n, v in update.arrays.items()}

    return client(name, change=spoil)


def when_trained(
    grid: FakeGrid, name: str, happen: Callable[[], None]
) -> Callable[[Message], RecordDict]:
    """A client to which something happens when it is told to train."""
    answer = client(name)

    def handler(message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            happen()
        return answer(message)

    return handler


# --- before the first round ----------------------------------------------------------------------


def test_a_refused_node_does_not_keep_the_missing_one_from_coming() -> None:
    grid = FakeGrid({"a": client("a"), "b": client("b"), "old": client("old", version="0")})
    grid.offline = {"b"}
    grid.clock.at(60, grid.offline.clear)
    watch = run(grid, FedAvg(2, app_version="1"), min_clients=2)
    assert watch.trained() == [["a", "b"]]
    assert grid.clock.monotonic() < 70
    assert "runs version 0" in next(iter(watch.reports[0].refused.values()))


class Choosy(FedAvg):
    """Needs clients that hold everything, as pow-d does."""

    def unsupported(self, info: ClientInfo) -> str | None:
        return None if len(info.modalities) == 2 else f"'{info.client_id}' lacks something"


def test_one_that_the_method_cannot_use_does_not_either() -> None:
    grid = FakeGrid({"a": client("a"), "b": client("b"), "half": client("half", ("a",))})
    grid.offline = {"b"}
    grid.clock.at(60, grid.offline.clear)
    watch = run(grid, Choosy(2), min_clients=2)
    assert watch.trained() == [["a", "b"]]
    assert "'half' lacks something" in watch.reports[0].refused.values()


def test_at_the_end_it_tells_who_is_there_and_who_was_refused_and_why() -> None:
    grid = FakeGrid(
        {
            "a": client("a"),
            "old": client("old", version="0"),
            "older": client("older", version="0"),
            "mute": client("mute"),
            "gone": client("gone"),
        },
        silent={"mute"},
    )
    grid.offline = {"gone"}
    with pytest.raises(FederationError) as raised:
        run(grid, FedAvg(2, app_version="1"), min_clients=4)
    text = str(raised.value)
    assert text.startswith("1 of 4 clients connected within 120 s (a)\n")
    assert text.count("client 'old' runs version 0") == 1
    assert text.count("is silent: no answer within 120 s") == 1
    assert "mend what is said of these nodes, start more SuperNodes" in text
    assert not isinstance(raised.value, Paused)


def test_a_resumed_run_names_those_that_are_missing() -> None:
    grid = FakeGrid({n: client(n) for n in names(3)})
    strategy = FedAvg(3)
    run(grid, strategy, 1, min_clients=3)
    grid.offline = {"client-1"}
    with pytest.raises(FederationError, match=r"(?s)2 of 3 .*\n  not connected: client-1\n"):
        run(grid, FedAvg(3), 2, start=strategy.state, min_clients=3)


def test_where_nobody_can_come_nobody_is_waited_for() -> None:
    grid = FakeGrid({"a": client("a"), "old": client("old", version="0")})
    with pytest.raises(FederationError, match="1 of 2 clients can take part"):
        run(grid, FedAvg(2, app_version="1"), min_clients=2)
    assert grid.clock.monotonic() < 1


def test_the_log_tells_who_is_there_when_something_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = FakeGrid({n: client(n) for n in names(3)})
    grid.offline = {"client-1", "client-2"}
    grid.clock.at(35, lambda: grid.offline.discard("client-1"))
    grid.clock.at(75, grid.offline.clear)
    with caplog.at_level(logging.INFO, "flwr"):
        run(grid, FedAvg(3), min_clients=3)
    told = [r.getMessage() for r in caplog.records if "waiting for clients" in r.getMessage()]
    assert told == [
        "waiting for clients: 1 of 3 clients connected (client-0)",
        "waiting for clients: 2 of 3 clients connected (client-0, client-1)",
    ]


# --- rounds that come to nothing -----------------------------------------------------------------


@pytest.mark.parametrize("method", [FedAvg, BMSFed, DivFL, RandomModality, PowerOfChoice])
def test_the_first_try_draws_what_was_always_drawn(method: type[ModalityStrategy]) -> None:
    strategy = method(3, seed=5)
    for purpose in ("select", "control"):
        ours = strategy.draw(purpose, 7).random(9)
        np.testing.assert_array_equal(ours, generator(5, purpose, 7).random(9))
    strategy.attempt = 1
    assert strategy.draw("select", 7).random() != ours[0]


@pytest.mark.parametrize("seed", range(4))
def test_one_dead_client_costs_a_try_and_not_the_run(seed: int) -> None:
    handlers = {"client-0": bad("client-0"), **{n: client(n) for n in names(3)[1:]}}
    watch = run(FakeGrid(handlers), FedAvg(1, seed=seed), rounds=8)
    assert len(watch.reports) == 8
    assert all(len(who) == 1 and who != ["client-0"] for who in watch.trained())
    for report in watch.failed:  # the same draw as without the fault
        assert list(report.failures) == ["client-0"]
        assert (report.attempt, report.failed) == (0, "no client gave a usable answer")
    sound = run(FakeGrid({n: client(n) for n in names(3)}), FedAvg(1, seed=seed), rounds=8)
    for one, other in zip(watch.trained(), sound.trained(), strict=True):
        assert one == other or other == ["client-0"]
    assert [r.round for r in watch.failed] == [
        r.round for r in sound.reports if r.trained[0].client_id == "client-0"
    ]


def test_a_try_that_came_to_nothing_changes_no_bit_of_the_state() -> None:
    before: list[bytes] = []

    class Keep(Watch):
        def after_failure(self, strategy: Any, report: RoundReport) -> None:
            before.append(strategy.state.to_bytes())

    strategy = FedAvg(1, seed=0)
    saved = ServerState(arrays=initial()).to_bytes()
    watch = Keep()
    grid = FakeGrid({n: bad(n) for n in names(2)})
    with pytest.raises(FederationError, match="no client gave a usable answer"):
        run(grid, strategy, watch=watch)
    assert len(before) == 2  # the other one was tried as well
    found = [ServerState.from_bytes(b) for b in before]
    for state in found:
        assert state.round == 0
        for name, value in ServerState.from_bytes(saved).arrays.items():
            np.testing.assert_array_equal(state.arrays[name], value)


def test_when_all_draws_are_faulty_it_ends_and_names_everybody() -> None:
    watch = Watch()
    with pytest.raises(FederationError) as raised:
        run(FakeGrid({n: bad(n) for n in names(9)}), FedAvg(2, seed=1), watch=watch)
    assert not isinstance(raised.value, Paused)
    assert len(watch.failed) == 3
    asked = [c.client_id for r in watch.failed for c in r.clients]
    assert len(set(asked)) == 6  # nobody twice
    assert all(f"\n  {name}: array " in str(raised.value) for name in asked)


def restarting(seconds: float, stay_away: Iterable[str] = ()) -> tuple[FakeGrid, Watch]:
    """Two clients that both go down in the second round, for some seconds."""
    grid = Remote({}, clock=FakeClock())

    def fall() -> None:
        if watch.reports and not watch.failed and not grid.offline:
            grid.offline = set(names(2))
            now = grid.clock.monotonic()
            grid.clock.at(now + seconds, lambda: grid.offline.intersection_update(stay_away))

    watch = Watch()
    grid.handlers = {n: when_trained(grid, n, fall) for n in names(2)}
    return grid, watch


def test_two_nodes_restarted_for_ten_seconds_cost_no_more_than_that() -> None:
    grid, watch = restarting(10)
    run(grid, FedAvg(2), 3, watch=watch, min_clients=2)
    assert [r.round for r in watch.reports] == [1, 2, 3]
    assert [r.round for r in watch.failed] == [2]
    assert set(watch.failed[0].failures) == set(names(2))
    assert "it left, or was started anew" in watch.failed[0].failures["client-0"]
    assert grid.clock.monotonic() < 60  # and not an hour


def test_when_nobody_comes_back_it_is_paused_and_can_go_on() -> None:
    grid, watch = restarting(10, stay_away=names(2))
    strategy = FedAvg(2)
    with pytest.raises(Paused) as raised:
        run(grid, strategy, 3, watch=watch, min_clients=2, patience=100)
    text = str(raised.value)
    assert text.startswith("round 2: no client gave a usable answer\n  client-0: it left")
    assert "within 100 s of patience\n  not connected: client-0, client-1" in text
    assert watch.error is raised.value
    assert 100 <= grid.clock.monotonic() < 150
    assert strategy.state.round == 1
    saved = ServerState.from_bytes(strategy.state.to_bytes())
    resumed = FedAvg(2)
    run(FakeGrid({n: client(n) for n in names(2)}), resumed, 3, start=saved)
    whole = FedAvg(2)
    run(FakeGrid({n: client(n) for n in names(2)}), whole, 3)
    assert resumed.state.to_bytes() == whole.state.to_bytes()


def test_nobody_there_at_all_is_waited_for_and_told(caplog: pytest.LogCaptureFixture) -> None:
    grid = FakeGrid({n: client(n) for n in names(2)})

    def leave(number: int) -> None:
        if number == 1:
            grid.offline = set(names(2))
            grid.clock.at(grid.clock.monotonic() + 50, lambda: grid.offline.discard("client-1"))

    watch = Watch(leave)
    with caplog.at_level(logging.INFO, "flwr"):
        run(grid, BMSFed(2), 2, watch=watch, min_clients=2)
    assert watch.trained() == [names(2), ["client-1"]]
    [failed] = watch.failed
    assert failed.failed == "no client to select among 0 connected"
    told = [r.getMessage() for r in caplog.records if "waits for clients" in r.getMessage()]
    assert told == [
        "round 2 waits for clients (no client to select among 0 connected)"
        "\n  not connected: client-0, client-1"
    ]


def test_without_patience_it_is_paused_at_once() -> None:
    grid, watch = restarting(10)
    with pytest.raises(Paused):
        run(grid, FedAvg(2), 3, watch=watch, min_clients=2, patience=0)
    assert len(watch.failed) == 1


def test_stopping_while_it_waits_keeps_the_last_round() -> None:
    grid, watch = restarting(1000)
    stop = threading.Event()
    grid.clock.at(100, stop.set)
    strategy = FedAvg(2)
    run(grid, strategy, 3, watch=watch, min_clients=2, stop=stop)
    assert strategy.state.round == 1
    assert str(watch.error) == "stopped on request"
    assert grid.clock.monotonic() < 101


# --- rounds that are closed without everybody ----------------------------------------------------


def entries(report: RoundReport) -> dict[str, ClientReport]:
    return {c.client_id: c for c in report.clients}


def test_a_deadline_follows_from_what_the_slowest_took() -> None:
    grid = Remote({n: client(n) for n in names(3)})
    grid.seconds = dict(zip(names(3), [10, 20, 50], strict=True))

    def slow_down(number: int) -> None:
        grid.seconds["client-0"] = 1000.0 if number == 2 else 10.0

    watch = Watch(slow_down)
    run(grid, FedAvg(3), 24, watch=watch, min_clients=3, deadline=Deadline(factor=3))
    without = watch.reports[2]
    told = r"no answer within 150(\.\d)? s, 3 times what the slowest took"
    assert list(without.failures) == ["client-0"]
    assert re.fullmatch(told, without.failures["client-0"])
    assert 150 <= without.seconds < 160
    # While it works on what nobody waits for, it is not asked; then it is one of them again.
    others = ["client-1", "client-2"]
    trained = watch.trained()
    back = trained.index(names(3), 3)
    assert trained == [names(3)] * 2 + [others] * (back - 2) + [names(3)] * (24 - back)
    assert len([r for r in watch.reports if r.failures]) == 1
    # It is known by now that one may take so long.
    asked = sum(r.seconds for r in watch.reports[2:back])
    assert 1000 <= asked < 1000 + 60


def test_before_anybody_has_answered_only_the_timeout_counts() -> None:
    grid = Remote({n: client(n) for n in names(2)}, silent=set())
    grid.seconds = {"client-0": 1.0, "client-1": 3000.0}
    watch = run(grid, FedAvg(2), 1, min_clients=2, deadline=Deadline(factor=2), timeout=5000)
    assert watch.trained() == [names(2)]


def test_a_factor_leaves_two_minutes_at_least() -> None:
    grid = Remote({n: client(n) for n in names(2)})

    def slow_down(number: int) -> None:
        grid.seconds["client-0"] = FLOOR - 1 if number == 1 else 1e6

    watch = Watch(slow_down)
    grid.seconds = {"client-1": 1.0}
    run(grid, FedAvg(2), 3, watch=watch, min_clients=2, deadline=Deadline(factor=1.001))
    assert watch.reports[1].failures == {}
    assert "the slowest so far took 119 s" in watch.reports[2].failures["client-0"]


def test_a_deadline_in_seconds_needs_nothing_known() -> None:
    grid = Remote({n: client(n) for n in names(2)})
    grid.seconds = {"client-1": 31.0}
    watch = run(grid, FedAvg(2), 1, min_clients=2, deadline=Deadline(seconds=30))
    assert watch.reports[0].failures == {"client-1": "no answer within 30 s"}


def test_without_a_deadline_the_timeout_counts_and_the_client_is_asked_again() -> None:
    grid = Remote({n: client(n) for n in names(2)}, silent=set())
    watch = Watch(lambda number: grid.silent.add("client-1"))
    run(grid, FedAvg(2), 3, watch=watch, min_clients=2)
    for report in watch.reports[1:]:
        assert report.failures == {"client-1": "no answer within 3600 s"}


def test_enough_answers_close_a_round_and_late_ones_are_ignored() -> None:
    seen: dict[str, list[int]] = {n: [] for n in names(4)}

    def counting(name: str) -> Callable[[Message], RecordDict]:
        answer = client(name)

        def handler(message: Message) -> RecordDict:
            if message.metadata.message_type == "train":
                seen[name].append(int(message.metadata.group_id))
            return answer(message)

        return handler

    grid = Remote({n: counting(n) for n in names(4)})
    grid.seconds = {**dict.fromkeys(names(4), 10.0), "client-3": 25.0}
    strategy = FedAvg(4, seed=3)
    watch = run(grid, strategy, 4, min_clients=4, enough=0.75)
    assert watch.reports[0].failures == {"client-3": LATE}
    assert 10 <= watch.reports[0].seconds < 11
    assert watch.trained() == [names(3)] * 4
    # It answered round 1 during round 3, and was asked again in round 4, not before.
    assert seen["client-3"] == [1, 4]
    # Its late answer changed nothing: the same as if it had never been there.
    grid = FakeGrid({n: client(n) for n in names(3)})
    alone = FedAvg(3, seed=3)
    run(grid, alone, 4, min_clients=3)
    for name, value in alone.state.arrays.items():
        np.testing.assert_array_equal(strategy.state.arrays[name], value)


def test_where_work_can_be_taken_back_nobody_stays_busy() -> None:
    grid = FakeGrid({n: client(n) for n in names(3)})
    grid.seconds = {"client-2": 10.0}
    watch = run(grid, FedAvg(3), 2, min_clients=3, enough=0.5)
    assert [set(entries(r)) for r in watch.reports] == [set(names(3))] * 2


def test_faulty_answers_are_not_enough() -> None:
    handlers = {n: client(n) for n in names(3)}

    def fail(message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            raise OSError("disk full")
        return client("client-0")(message)

    grid = Remote(handlers | {"client-0": fail})
    grid.seconds = {"client-1": 10.0, "client-2": 20.0}
    watch = run(grid, FedAvg(3), 1, min_clients=3, enough=0.6)
    assert watch.trained() == [["client-1", "client-2"]]


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_node_that_leaves_while_it_works_is_not_waited_for(comes_back: bool) -> None:
    grid = Remote({n: client(n) for n in names(3)})
    grid.seconds = {"client-0": 10.0, "client-1": 40.0, "client-2": 1000.0}
    grid.clock.at(20, lambda: grid.offline.add("client-2"))
    if comes_back:
        grid.clock.at(25, grid.offline.clear)
    watch = run(grid, FedAvg(3), 1, min_clients=3)
    assert watch.trained() == [["client-0", "client-1"]]
    assert "it left, or was started anew" in watch.reports[0].failures["client-2"]
    assert watch.reports[0].seconds < 60


def test_one_that_was_restarted_under_its_own_id_is_noticed_too() -> None:
    grid = Remote({n: client(n) for n in names(2)})
    grid.seconds = {"client-0": 10.0, "client-1": 1000.0}

    def restart() -> None:
        grid.restart("client-1")
        grid.seconds["client-1"] = 5.0

    grid.clock.at(20, restart)
    watch = run(grid, FedAvg(2), 2, min_clients=2)
    assert watch.trained() == [["client-0"], names(2)]  # nor is it taken for busy
    assert watch.reports[0].seconds < 60


def test_an_answer_that_was_on_its_way_counts() -> None:
    """It came back within the grace, and so did its answer."""
    grid = Remote({n: client(n) for n in names(2)})
    grid.seconds = {"client-0": 1.0, "client-1": 26.0}
    grid.clock.at(20, lambda: setattr(grid, "get_nodes", lambda: iter(())))
    watch = run(grid, FedAvg(2), 1, min_clients=2)
    assert watch.trained() == [names(2)]


@pytest.mark.parametrize("given", [-1, float("nan"), "3", "1x", "x", "-3x", "3 x"])
def test_a_deadline_that_is_none_is_refused(given: float | str) -> None:
    with pytest.raises(ValueError, match="give seconds, or a factor above 1"):
        Deadline.read(given)


@pytest.mark.parametrize("given", [{"patience": -1}, {"enough": 0}, {"enough": 1.5}])
def test_numbers_out_of_their_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} is "):
        Waiting(**given)  # type: ignore[arg-type]
