"""Who a node is: bound ids, reconnections, refused nodes, newcomers beside the rounds."""

import logging
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from strategies import (
    BMSFed,
    Callback,
    FedAvg,
    ModalityStrategy,
    Prototypes,
    RoundReport,
    ServerState,
    Update,
)
from strategies.testing import FakeGrid, Handler
from tests.strategies.test_federation import client, initial, names

KEYS = {name: f"key of {name}" for name in (*names(3), "thief")}


class Script(Callback):
    """Does something after given rounds, and keeps the reports."""

    def __init__(self, **after: Callable[[], object]) -> None:
        self.after, self.reports = after, list[RoundReport]()

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        self.reports.append(report)
        self.after.get(f"round{report.round}", lambda: None)()

    def trained(self) -> list[set[str]]:
        return [{c.client_id for c in report.trained} for report in self.reports]


def run(
    strategy: ModalityStrategy,
    grid: FakeGrid,
    script: Script,
    rounds: int,
    start: ServerState | None = None,
    **options: object,
) -> ServerState:
    given = {"min_clients": 1, "connect_timeout": 0.3} | options
    return strategy.run(
        grid,
        start or initial(),
        num_rounds=rounds,
        callbacks=[script],
        **given,  # type: ignore[arg-type]
    )


def who(name: str, modalities: tuple[str, ...] = ("a", "b")) -> Handler:
    """A client that says with every answer who it is and what it holds, as our app does."""

    def say(update: Update) -> None:
        update.sender, update.held = name, modalities

    return client(name, modalities, change=say)


# --- bound ids -----------------------------------------------------------------------------------


def swapped(authenticated: bool | None, keys: dict[str, str] | None) -> tuple[Script, ServerState]:
    """Client 1 leaves after round 1, another node takes its id, and it comes back after round 4."""
    grid = FakeGrid({n: who(n) for n in names(3)} | {"thief": who("client-1")}, keys=keys)
    grid.offline = {"thief"}

    def leaves() -> None:
        grid.offline = {"client-1"}

    def returns() -> None:
        grid.offline = set()

    script = Script(round1=leaves, round4=returns)
    state = run(FedAvg(3), grid, script, 8, authenticated=authenticated)
    return script, state


def test_a_client_id_belongs_to_the_key_that_came_with_it() -> None:
    script, state = swapped(None, KEYS)
    others = {"client-0", "client-2"}
    assert script.trained()[:4] == [{*names(3)}, others, others, others]
    assert script.trained()[4:] == [{*names(3)}] * 4  # the rightful one is admitted at once
    refused = [r for report in script.reports for r in report.refused.values()]
    assert len(refused) == 1  # told once, however often it tries
    assert "'client-1' belongs to the node with key" in refused[0]
    assert "bmsfed nodes forget RUN client-1" in refused[0]
    assert set(state.bindings) == {*names(3)}
    assert not any(report.notes for report in script.reports)


@pytest.mark.parametrize(("authenticated", "keys"), [(None, {}), (False, KEYS)])
def test_without_authentication_ids_are_claims_and_this_is_said_once(
    authenticated: bool | None, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flwr"):
        script, state = swapped(authenticated, keys)
    assert "client-1" in script.trained()[3]  # by another node
    assert state.bindings == {}
    [note] = [note for report in script.reports for note in report.notes]
    assert "only claims" in note
    assert "--enable-supernode-auth" in note
    assert script.reports[0].notes == [note]
    assert sum("only claims" in record.message for record in caplog.records) == 1


def test_a_simulation_has_no_keys_and_needs_no_warning() -> None:
    script, state = swapped(None, None)
    assert state.bindings == {}
    assert not any(report.notes for report in script.reports)


def test_a_binding_outlasts_the_run() -> None:
    _, state = swapped(None, KEYS)
    saved = ServerState.from_bytes(state.to_bytes())
    assert saved.bindings == state.bindings
    grid = FakeGrid({"client-0": who("client-0"), "thief": who("client-1")}, keys=KEYS, seed=5)
    script = Script()
    run(FedAvg(3), grid, script, 10, saved)
    assert script.trained() == [{"client-0"}] * 2
    assert "belongs to" in next(iter(script.reports[0].refused.values()))
    del saved.bindings["client-1"]  # released
    saved.round = 8
    grid = FakeGrid({"client-0": who("client-0"), "thief": who("client-1")}, keys=KEYS, seed=6)
    run(FedAvg(3), grid, script := Script(), 9, saved)
    assert script.trained() == [{"client-0", "client-1"}]


# --- reconnections -------------------------------------------------------------------------------


def test_a_node_that_comes_back_with_other_modalities_is_enrolled_anew() -> None:
    grid = FakeGrid({n: who(n) for n in names(3)}, keys=KEYS)

    def changes() -> None:
        grid.handlers["client-1"] = who("client-1", ("a",))
        grid.reconnect("client-1")  # nobody saw it gone

    script = Script(round1=changes)
    state = run(BMSFed(3), grid, script, 6)
    assert state.clients["client-1"].modalities == ("a",)
    assert set(state.prototypes["client-1"]) == {"a"}
    assert set(state.signatures["client-1"]) == {"enhance.a"}
    assert state.ratios.get("client-1", {}) == {}
    assert not any(report.failures for report in script.reports[3:])
    assert [[c.client_id for c in r.clients if c.phase == "probe"] for r in script.reports] == [
        names(3),
        [],
        ["client-1"],
        *[[]] * 3,
    ]


def test_a_node_that_comes_back_as_another_client_is_that_one() -> None:
    grid = FakeGrid({n: who(n) for n in names(3)}, keys=KEYS)

    def renamed() -> None:
        grid.handlers["client-1"] = who("client-9")
        grid.reconnect("client-1")

    script = Script(round1=renamed)
    run(FedAvg(3), grid, script, 4)
    assert script.trained()[2:] == [{"client-0", "client-2", "client-9"}] * 2
    [fault] = script.reports[1].failures.values()
    assert "enrolled as 'client-1' and answers as 'client-9'" in fault


@pytest.mark.parametrize(
    ("becomes", "fault"),
    [
        (who("client-1", ("a",)), r"enrolled with ['a', 'b'] and holds ['a']"),
        (who("client-8"), "enrolled as 'client-1' and answers as 'client-8'"),
    ],
)
def test_an_answer_that_differs_from_the_enrolment_is_left_out_and_its_node_asked_anew(
    becomes: Handler, fault: str
) -> None:
    """Also where nothing else shows that the node is another one: here there are no keys."""
    grid = FakeGrid({n: who(n, ("a", "b")) for n in names(3)})
    script = Script(round1=lambda: grid.handlers.update({"client-1": becomes}))
    before = run(FedAvg(3), grid, script, 4)
    assert fault in script.reports[1].failures["client-1"]
    assert not any(report.failures for report in script.reports[2:])
    assert len(script.trained()[3]) == 3
    assert before.clients.keys() >= {*names(3)}


def test_what_was_measured_on_other_data_is_dropped_and_a_personal_head_kept() -> None:
    strategy = FedAvg(1)
    state = strategy.state
    state.prototypes["k"] = {"a": Prototypes(np.zeros((1, 1), np.float32), np.array([1]))}
    state.memory["k"] = {"head.bias": np.zeros(1)}
    state.ratios["k"] = {"a": 1.0}
    strategy.forget("k", measured_only=True)
    assert (state.prototypes, state.ratios, set(state.memory)) == ({}, {}, {"k"})
    strategy.forget("k")
    assert state.memory == {}


# --- refused nodes -------------------------------------------------------------------------------


def test_a_refused_node_is_asked_again_ever_more_rarely_and_comes_in_once_mended() -> None:
    asked: list[str] = []

    def broken(message: Message) -> RecordDict:
        asked.append(message.metadata.message_type)
        raise ValueError("no data folder")

    grid = FakeGrid({**{n: who(n) for n in names(2)}, "client-2": broken})
    script = Script(round10=lambda: grid.handlers.update({"client-2": who("client-2")}))
    run(FedAvg(3), grid, script, 20)
    assert asked == ["query.enrol"] * 4  # before round 1, then after 1, 2 and 4 rounds
    told = [reason for report in script.reports for reason in report.refused.values()]
    assert told == ["ValueError: no data folder"]
    joined = [r.round for r in script.reports if r.joined and r.round > 1]
    assert len(joined) == 1
    assert 10 < joined[0] <= 17
    assert "client-2" in script.trained()[-1]


def test_a_refused_node_that_connects_anew_is_asked_at_once() -> None:
    def broken(message: Message) -> RecordDict:
        raise ValueError("no data folder")

    grid = FakeGrid({**{n: who(n) for n in names(2)}, "client-2": broken}, keys=KEYS)

    def mended() -> None:
        grid.handlers["client-2"] = who("client-2")
        grid.reconnect("client-2")

    script = Script(round5=mended)
    run(FedAvg(3), grid, script, 8)
    assert ["client-2" in trained for trained in script.trained()] == [False] * 6 + [True] * 2


# --- newcomers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [FedAvg, BMSFed])
def test_a_late_node_that_hangs_holds_up_nobody(build: Callable[[int], ModalityStrategy]) -> None:
    grid = FakeGrid({n: who(n) for n in names(3)}, silent={"client-2"})
    grid.offline = {"client-2"}
    script = Script(round1=grid.offline.clear)
    run(build(3), grid, script, 4, connect_timeout=10_000, timeout=10_000)  # else the test hangs
    assert script.trained() == [{*names(2)}] * 4


def test_a_newcomer_that_hangs_when_measured_holds_up_nobody() -> None:
    grid = FakeGrid({n: who(n) for n in names(3)})
    grid.offline = {"client-2"}

    def hangs_after_enrolment(message: Message) -> RecordDict:
        grid.silent.add("client-2")
        return who("client-2")(message)

    grid.handlers["client-2"] = hangs_after_enrolment
    script = Script(round1=grid.offline.clear)
    run(BMSFed(3), grid, script, 5, timeout=10_000)
    assert script.trained() == [{*names(2)}] * 5
    assert [c.client_id for c in script.reports[1].joined] == ["client-2"]


# --- measuring -----------------------------------------------------------------------------------


def measured(reports: Iterable[RoundReport]) -> list[int]:
    return [sum(c.phase == "probe" for c in report.clients) for report in reports]


def test_so_many_newcomers_are_measured_a_round_and_only_they_can_be_selected() -> None:
    grid = FakeGrid({n: who(n) for n in names(10)})
    script = Script()
    state = run(BMSFed(3, measure_per_round=4), grid, script, 4)
    assert measured(script.reports) == [4, 4, 2, 0]
    known: set[str] = set()
    for report in script.reports:
        probed = {c.client_id for c in report.clients if c.phase == "probe"}
        known |= probed if report.round == 1 else set()
        assert {a.client_id for a in report.assignments} <= known
        known |= probed  # measured beside this round, they can be selected in the next
    assert known == set(state.signatures) == {*names(10)}


def test_going_on_amid_measuring_equals_never_stopping() -> None:
    handlers = {n: who(n) for n in names(10)}
    whole, script = Script(), Script()
    end = run(BMSFed(3, measure_per_round=4), FakeGrid(handlers), whole, 4)
    half = run(BMSFed(3, measure_per_round=4), FakeGrid(handlers), Script(), 2)
    saved = ServerState.from_bytes(half.to_bytes())
    resumed = run(BMSFed(3, measure_per_round=4), FakeGrid(handlers), script, 4, saved)
    assert resumed.to_bytes() == end.to_bytes()
    assert [r.picks for r in script.reports] == [r.picks for r in whole.reports[2:]]


def test_small_fleets_are_measured_whole_as_in_the_paper() -> None:
    grid = FakeGrid({n: who(n) for n in names(100)})
    script = Script()
    run(BMSFed(10), grid, script, 2, min_clients=100)
    assert measured(script.reports) == [100, 0]


def test_of_large_fleets_some_are_measured_a_round() -> None:
    grid = FakeGrid({n: who(n) for n in names(150)})
    script = Script()
    run(BMSFed(10), grid, script, 3, min_clients=150)
    assert measured(script.reports) == [100, 50, 0]
    script = Script()
    run(BMSFed(0.4), FakeGrid(grid.handlers), script, 3, min_clients=150)
    assert measured(script.reports) == [120, 30, 0]  # twice those that train: there is a choice
    assert [len(report.assignments) for report in script.reports] == [60, 60, 60]
