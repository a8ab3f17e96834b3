"""Callbacks beside the next round: nothing that they see or leave behind tells the difference."""

import threading
from collections.abc import Sequence

import pytest

from server_app.overlap import Overlapped
from strategies import BMSFed, Callback, Decisions, FedAvg, RoundReport, ServerState
from strategies.testing import FakeGrid
from tests.strategies.test_federation import client, initial, names

FOREVER = 600  # seconds, after which what waits in vain says so


class Late(Callback):
    """Sees a round only once the next one's tasks are with the clients; notes what it saw."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.training = rounds, threading.Event()
        self.seen: list[bytes] = []
        self.ended: list[tuple[bytes, BaseException | None]] = []

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        if server_round > 1 and phase == "train":
            self.training.set()

    def after_round(self, strategy: Decisions, report: RoundReport) -> bool | None:
        if report.round < self.rounds:
            assert self.training.wait(FOREVER)
            self.training.clear()
        self.seen.append(strategy.state.to_bytes())
        return None

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        self.ended.append((strategy.state.to_bytes(), error))


class Now(Callback):
    """Sees every round before the next one begins."""

    before_next_round = True

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        self.seen.append(strategy.state.to_bytes())


class Joining(Callback):
    """One more client is there in every round, so that enrolment and probes change the state."""

    def __init__(self, grid: FakeGrid) -> None:
        self.grid = grid
        grid.offline = set(names()[2:])

    def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
        if phase == "train":
            self.grid.offline = set(names()[2 + server_round :])


def federate(
    callbacks: Sequence[Callback], rounds: int = 4, stop: threading.Event | None = None
) -> ServerState:
    grid = FakeGrid({n: client(n) for n in names()})
    overlapped = Overlapped([Joining(grid), *callbacks])
    return BMSFed(2, seed=1).run(
        grid, initial(), num_rounds=rounds, callbacks=[overlapped], min_clients=2, stop=stop
    )


def whole(rounds: int = 4) -> list[bytes]:
    """The states after each round, where nothing runs beside anything."""
    now = Now()
    federate([now], rounds)
    return now.seen


def test_a_round_is_seen_as_it_ended_while_the_next_one_runs() -> None:
    late = Late(4)
    state = federate([late])
    assert late.seen == whole()
    assert late.ended == [(state.to_bytes(), None)]
    assert state.to_bytes() == late.seen[-1]


def test_who_must_see_a_round_first_holds_up_the_next_one_and_all_others() -> None:
    order: list[str] = []

    class Order(Callback):
        def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
            order.append(f"{phase} {server_round}")

        def after_round(self, strategy: Decisions, report: RoundReport) -> None:
            order.append(f"seen {report.round} in {threading.current_thread().name}")

    here = threading.current_thread().name
    federate([Order(), Now()], rounds=2)
    assert order.index(f"seen 1 in {here}") < order.index("train 2")
    assert order[-1] == f"seen 2 in {here}"


@pytest.mark.parametrize("last", [1, 2, 4])
def test_an_error_ends_the_run_as_if_the_next_round_had_not_begun(last: int) -> None:
    class Fail(Late):
        def after_round(self, strategy: Decisions, report: RoundReport) -> None:
            super().after_round(strategy, report)
            if report.round == last:
                raise ValueError(f"the test split of round {last} is no good")

    fail, late = Fail(4), Late(4)
    with pytest.raises(ValueError, match=f"the test split of round {last} is no good") as raised:
        federate([late, fail])
    states = whole()
    assert fail.seen == late.seen == states[:last]
    assert fail.ended == late.ended == [(states[last - 1], raised.value)]


def test_an_error_is_noticed_while_clients_train() -> None:
    replies: list[int] = []

    class Fail(Callback):
        failed = threading.Event()

        def after_round(self, strategy: Decisions, report: RoundReport) -> None:
            self.failed.set()
            raise ValueError("the disk is full")

        def on_reply(self, server_round: int, phase: str, done: int, total: int) -> None:
            if (server_round, phase) == (2, "train"):
                assert self.failed.wait(FOREVER)
                replies.append(done)

    with pytest.raises(ValueError, match="the disk is full"):
        federate([Fail()])
    assert len(replies) < 2


def test_a_wish_to_stop_drops_what_was_begun_since() -> None:
    class Enough(Late):
        def after_round(self, strategy: Decisions, report: RoundReport) -> bool:
            super().after_round(strategy, report)
            return report.round == 2

    enough = Enough(4)
    state = federate([enough])
    assert enough.seen == whole()[:2]
    assert enough.ended == [(enough.seen[-1], None)]
    assert state.to_bytes() == enough.seen[-1]


def test_what_is_under_way_is_finished_where_a_run_is_stopped() -> None:
    stop = threading.Event()

    class Stopped(Late):
        def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
            super().on_dispatch(server_round, phase, total)
            if (server_round, phase) == (3, "train"):
                stop.set()

    stopped = Stopped(4)
    state = federate([stopped], stop=stop)
    assert stopped.seen == whole()[:2]
    [(last, error)] = stopped.ended
    assert last == stopped.seen[-1] == state.to_bytes()
    assert str(error) == "stopped on request"


def test_a_run_that_ends_before_its_first_round_is_told_so() -> None:
    stop = threading.Event()
    stop.set()
    late = Late(1)
    state = federate([late], stop=stop)
    [(last, error)] = late.ended
    assert (late.seen, last, str(error)) == ([], state.to_bytes(), "stopped on request")


def test_no_more_than_one_round_waits_to_be_seen() -> None:
    begun: list[int] = []
    ahead: list[int] = []

    class Slow(Callback):
        def on_dispatch(self, server_round: int, phase: str, total: int) -> None:
            begun.append(server_round)

        def after_round(self, strategy: Decisions, report: RoundReport) -> None:
            ahead.append(max(begun) - report.round)

    grid = FakeGrid({n: client(n) for n in names()})
    slow = Overlapped([Slow()])
    FedAvg(2).run(grid, initial(), num_rounds=20, callbacks=[slow])
    assert len(ahead) == 20
    assert set(ahead) <= {0, 1}


class Ending(Callback):
    """Raises at the end, after noting that it was told."""

    def __init__(self, told: list[str], name: str, *, in_round: bool = False) -> None:
        self.told, self.name, self.in_round = told, name, in_round

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        if self.in_round:
            raise ValueError("the round of " + self.name)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        self.told.append(self.name)
        raise ValueError(self.name)


@pytest.mark.parametrize("in_round", [False, True])
@pytest.mark.parametrize("overlap", [False, True])
def test_all_are_told_of_the_end_and_the_first_error_is_raised(
    overlap: bool, in_round: bool
) -> None:
    told: list[str] = []
    inner = Overlapped([Ending(told, "a", in_round=in_round), Ending(told, "b")], overlap)
    callbacks = [inner, Ending(told, "c")]
    grid = FakeGrid({n: client(n) for n in names()})
    with pytest.raises(ValueError, match="a") as raised:
        BMSFed(2, seed=1).run(grid, initial(), num_rounds=1, callbacks=callbacks)
    assert told == ["a", "b", "c"]
    errors = (["the round of a"] if in_round else []) + ["a", "b", "c"]
    assert str(raised.value) == errors[0]
    assert [note.rpartition(": ")[2] for note in raised.value.__notes__] == errors[1:]
    assert raised.value.__context__ is None


def test_a_try_that_came_to_nothing_is_told_after_the_round_before() -> None:
    told: list[str] = []
    seen = threading.Event()

    class Slow(Callback):
        def after_round(self, strategy: Decisions, report: RoundReport) -> bool:
            seen.wait(600)
            told.append(f"round {report.round}")
            return report.round == 3

        def after_failure(self, strategy: Decisions, report: RoundReport) -> None:
            told.append(f"failed {report.round}")

    strategy, overlapped = FedAvg(2), Overlapped([Slow()])
    overlapped.on_start(strategy, 9)
    overlapped.after_round(strategy, RoundReport(2))
    threading.Timer(0.2, seen.set).start()
    assert not overlapped.after_failure(strategy, RoundReport(3, failed="nobody is there"))
    overlapped.after_round(strategy, RoundReport(3))
    # That round ended the run: what was done of the next one is dropped.
    assert overlapped.after_failure(strategy, RoundReport(4, failed="nobody is there"))
    overlapped.on_end(strategy, None)
    assert told == ["round 2", "failed 3", "round 3"]
