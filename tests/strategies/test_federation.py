"""Whole federations over a FakeGrid with numpy clients: order, ids, faults, late nodes."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from strategies import (
    BMSFed,
    Callback,
    ClientInfo,
    FedAvg,
    FederationError,
    ModalityStrategy,
    Prototypes,
    RoundReport,
    ServerState,
    Update,
    Waiting,
)
from strategies.protocol import pack_enrolment, pack_update, unpack_task
from strategies.randomness import generator
from strategies.testing import FakeGrid

MODALITIES = ("a", "b")


def initial() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {f"encoders.{m}.w": rng.normal(size=(4,)).astype(np.float32) for m in MODALITIES}
    arrays |= {f"head.weight.{m}": np.zeros((2, 4), np.float32) for m in MODALITIES}
    return arrays | {"head.bias": np.zeros(2, np.float32)}


def client(
    name: str,
    modalities: tuple[str, ...] = MODALITIES,
    change: Callable[[Update], None] = lambda update: None,
    version: str = "1",
) -> Callable[[Message], RecordDict]:
    """A client that adds noise of (client, round) to what it gets and reports made-up numbers."""
    info = ClientInfo(name, modalities, num_samples=10 + len(name), class_counts=(5, 5))

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query.enrol":
            return pack_enrolment(info, version)
        task = unpack_task(message.content)
        rng = generator(0, name, task.orders.round, task.orders.kind)
        modalities, wanted = task.orders.modalities, task.orders.signature
        size = wanted.sketch_dim if wanted is not None else 0
        update = Update(name, modalities, info.num_samples)
        for m in modalities:
            means = rng.normal(size=(2, 4)).astype(np.float32)
            update.prototypes[m] = Prototypes(means, np.array([5, 5]))
            if wanted is not None:
                update.signatures[f"enhance.{m}"] = rng.normal(size=size).astype(np.float32)
        if len(modalities) > 1:
            if wanted is not None:
                update.signatures["multi"] = rng.normal(size=size).astype(np.float32)
            update.ratios = {"a": 1.0, "b": float(rng.uniform(1, 2))}
        if message.metadata.message_type == "train":
            update.arrays = {
                n: v + rng.normal(size=v.shape).astype(v.dtype) for n, v in task.arrays.items()
            }
        update.metrics = {"loss": 0.5}
        change(update)
        return pack_update(update)

    return answer


class Recorder(Callback):
    def __init__(self) -> None:
        self.reports: list[RoundReport] = []

    def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
        self.reports.append(report)

    def rows(self) -> list[Any]:
        return [
            [r.round, [(a.client_id, a.modalities) for a in r.assignments], r.ratios, r.picks]
            for r in self.reports
        ]


def federate(
    strategy: ModalityStrategy,
    grid: FakeGrid,
    rounds: int = 4,
    start: ServerState | None = None,
    **more: Any,
) -> tuple[ServerState, Recorder]:
    recorder = Recorder()
    more = {"callbacks": [recorder], "min_clients": 1, "timeout": 1} | more
    state = strategy.run(grid, start or initial(), num_rounds=rounds, **more)
    return state, recorder


def names(count: int = 6) -> list[str]:
    return [f"client-{i}" for i in range(count)]


@pytest.mark.parametrize("build", [lambda: FedAvg(3, seed=1), lambda: BMSFed(3, seed=1)])
def test_node_ids_and_reply_order_do_not_change_a_bit(
    build: Callable[[], ModalityStrategy],
) -> None:
    runs = []
    for seed, order in ((0, names()), (1, names()[::-1])):
        grid = FakeGrid({n: client(n) for n in order}, seed=seed)
        runs.append(federate(build(), grid))
    (one, rows), (other, same_rows) = runs
    assert json.dumps(rows.rows()) == json.dumps(same_rows.rows())
    assert one.to_bytes() == other.to_bytes()


@pytest.mark.parametrize("build", [lambda: FedAvg(3, seed=1), lambda: BMSFed(3, seed=1)])
def test_going_on_from_a_saved_state_equals_never_stopping(
    build: Callable[[], ModalityStrategy],
) -> None:
    handlers = {n: client(n) for n in names()}
    whole, rows = federate(build(), FakeGrid(handlers), rounds=5)
    half, _ = federate(build(), FakeGrid(handlers, seed=7), rounds=2)
    saved = ServerState.from_bytes(half.to_bytes())
    resumed, later = federate(build(), FakeGrid(handlers, seed=8), rounds=5, start=saved)
    assert json.dumps(rows.rows()[2:]) == json.dumps(later.rows())
    assert {n: v.tobytes() for n, v in whole.arrays.items()} == {
        n: v.tobytes() for n, v in resumed.arrays.items()
    }


def test_clients_receive_only_the_parts_they_train() -> None:
    received: dict[str, list[set[str]]] = {}

    def spy(name: str, modalities: tuple[str, ...]) -> Callable[[Message], RecordDict]:
        answer = client(name, modalities)

        def handler(message: Message) -> RecordDict:
            if message.metadata.message_type == "train":
                received.setdefault(name, []).append(set(unpack_task(message.content).arrays))
            return answer(message)

        return handler

    grid = FakeGrid({"k1": spy("k1", ("a",)), "k2": spy("k2", ("a", "b"))})
    _state, _ = federate(FedAvg(2), grid, rounds=1)
    assert received["k1"] == [{"encoders.a.w", "head.weight.a", "head.bias"}]
    assert received["k2"] == [set(initial())]


BROKEN: dict[str, tuple[Callable[[Update], None], str]] = {
    "nan": (lambda u: u.arrays["head.bias"].fill(np.nan), "head.bias' holds NaN"),
    "shape": (
        lambda u: u.arrays.update({"head.bias": np.zeros(3, np.float32)}),
        r"expected float32\[2\]",
    ),
    "type": (lambda u: u.arrays.update({"head.bias": np.zeros(2)}), "is float64"),
    "missing": (lambda u: u.arrays.clear(), "missing array 'encoders.a.w'"),
    "unknown": (lambda u: u.arrays.update({"x": np.zeros(1)}), "unknown array 'x'"),
    "count": (lambda u: setattr(u, "num_samples", -1), "negative sample count -1"),
    "more than it has": (
        lambda u: u.present.update({"a": u.num_samples + 1}),
        r"it answers for (\d+) samples with 'a', of \d+ in all: count those that have it",
    ),
    "of what it does not train": (
        lambda u: u.present.update({"taste": 1}),
        "unexpected sample count of 'taste'",
    ),
    "ratio": (lambda u: u.ratios.update({"b": float("inf")}), "JSON that holds Infinity"),
    "signature": (
        lambda u: u.signatures.update({"multi": np.zeros(3, np.float32)}),
        "signature 'multi' has shape",
    ),
    "raise": (lambda u: (_ for _ in ()).throw(OSError("disk full")), "disk full"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_bad_answer_is_left_out_by_name_and_the_round_goes_on(fault: str) -> None:
    spoil, reason = BROKEN[fault]
    in_training = lambda u: spoil(u) if u.arrays else None  # noqa: E731
    handlers = {n: client(n) for n in names(3)}
    handlers["client-1"] = client("client-1", change=in_training)
    state, recorder = federate(BMSFed(3), FakeGrid(handlers), rounds=1)
    [report] = recorder.reports
    assert list(report.failures) == ["client-1"]
    assert re.search(reason, report.failures["client-1"])
    assert all(np.isfinite(v).all() for v in state.arrays.values())
    assert state.round == 1
    assert {a.client_id for a in report.assignments} == set(names(3))


def test_a_silent_client_is_left_out_after_the_timeout() -> None:
    grid = FakeGrid({n: client(n) for n in names(3)})

    class Fall(Callback):
        def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
            grid.silent = {"client-0"}

    recorder = Recorder()
    FedAvg(3).run(grid, initial(), num_rounds=2, callbacks=[Fall(), recorder], timeout=0.3)
    assert recorder.reports[0].failures == {}
    assert recorder.reports[1].failures == {"client-0": "no answer within 0.3 s"}


def test_answers_that_are_there_count_however_long_sending_took() -> None:
    """A client of FakeGrid trains while it is sent to: on a slow machine, for ages."""
    grid = FakeGrid({n: client(n) for n in names(3)})
    recorder = Recorder()
    FedAvg(3).run(grid, initial(), num_rounds=1, callbacks=[recorder], timeout=1e-9)
    assert recorder.reports[0].failures == {}


def test_a_node_that_never_says_who_it_is_does_not_hold_up_the_others() -> None:
    grid = FakeGrid({n: client(n) for n in names(3)}, silent={"client-1"})
    recorder = Recorder()
    FedAvg(3).run(
        grid, initial(), num_rounds=2, callbacks=[recorder], min_clients=2, connect_timeout=0.3
    )
    for report in recorder.reports:
        assert {a.client_id for a in report.assignments} == {"client-0", "client-2"}
    assert list(recorder.reports[0].refused.values()) == ["no answer within 0.3 s"]
    assert recorder.reports[1].refused == {}


def test_too_few_clients_say_how_to_start_more() -> None:
    grid = FakeGrid({n: client(n) for n in names(2)})
    with pytest.raises(FederationError, match=r"2 of 5 clients .*num-supernodes=5"):
        FedAvg(2).run(grid, initial(), num_rounds=1, min_clients=5, connect_timeout=0.3)


def test_when_all_fail_the_run_stops_and_says_why() -> None:
    handlers = {n: client(n, change=BROKEN["nan"][0]) for n in names(2)}
    strategy = FedAvg(2)
    with pytest.raises(
        FederationError, match=r"(?s)all 2 answers .*model that was sent, .*client-0: "
    ):
        federate(strategy, FakeGrid(handlers))
    assert strategy.state.round == 0
    np.testing.assert_array_equal(strategy.state.arrays["head.bias"], [0, 0])


def test_a_late_node_is_asked_and_measured_beside_the_rounds() -> None:
    grid = FakeGrid({n: client(n) for n in names(4)})
    grid.offline = {"client-3"}

    class Arrive(Callback):
        def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
            if report.round == 2:
                grid.offline = set()

    recorder = Recorder()
    BMSFed(4).run(grid, initial(), num_rounds=5, callbacks=[Arrive(), recorder])
    took_part = [{a.client_id for a in r.assignments} for r in recorder.reports]
    assert took_part == [*[set(names(3))] * 4, set(names(4))]
    assert [c.client_id for c in recorder.reports[2].joined] == ["client-3"]
    probes = [[c.client_id for c in r.clients if c.phase == "probe"] for r in recorder.reports]
    assert probes == [names(3), [], [], ["client-3"], []]


def test_a_client_that_reconnects_keeps_its_history() -> None:
    grid = FakeGrid({n: client(n) for n in names(3)})

    class Reconnect(Callback):
        def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
            grid.offline = {"client-1"} if report.round == 1 else set()

    recorder = Recorder()
    state = BMSFed(3).run(grid, initial(), num_rounds=4, callbacks=[Reconnect(), recorder])
    assert sorted(state.clients) == names(3)
    assert not [c for c in recorder.reports[3].clients if c.phase == "probe"]  # known already
    took_part = ["client-1" in {a.client_id for a in r.assignments} for r in recorder.reports]
    assert took_part == [True, False, False, True]


def test_two_nodes_with_one_client_id_are_one_client_too_many() -> None:
    grid = FakeGrid({"x": client("same"), "y": client("same"), "z": client("other")})
    _, recorder = federate(FedAvg(3), grid, rounds=1)
    [report] = recorder.reports
    assert {a.client_id for a in report.assignments} == {"same", "other"}
    assert "already taken" in next(iter(report.refused.values()))


def test_another_version_is_refused_with_the_remedy() -> None:
    grid = FakeGrid({"k": client("k", version="0")})
    with pytest.raises(FederationError, match=r"'k' runs version 0 .* install the same version"):
        federate(FedAvg(1, app_version="1"), grid, waiting=Waiting(clock=grid.clock))


def test_measurements_of_another_shape_are_left_out_also_in_the_first_round() -> None:
    def widen(update: Update) -> None:
        wide = Prototypes(np.zeros((2, 9), np.float32), np.array([5, 5]))
        update.prototypes = dict.fromkeys(update.prototypes, wide)

    def lengthen(update: Update) -> None:
        update.signatures = {n: np.zeros(99, np.float32) for n in update.signatures}

    handlers = {n: client(n) for n in names(3)}
    handlers["client-3"] = client("client-3", change=widen)
    handlers["client-4"] = client("client-4", change=lengthen)
    state, recorder = federate(BMSFed(2), FakeGrid(handlers), rounds=1)
    failures = recorder.reports[0].failures
    assert "have shape (2, 9), expected (2, 4)" in failures["client-3"]
    assert "has shape (99,), expected (4096,)" in failures["client-4"]
    assert set(state.prototypes) == set(names(3))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (client("k", ("a", "taste")), "holds ['a', 'taste'], the model has ['a', 'b']"),
        (client("k", ()), "holds []"),
        (lambda message: RecordDict(), "does it run this app?"),
    ],
)
def test_a_node_of_another_experiment_is_refused(
    answer: Callable[[Message], RecordDict], reason: str
) -> None:
    grid = FakeGrid({"k": answer, **{n: client(n) for n in names(2)}})
    _, recorder = federate(FedAvg(3), grid, rounds=1)
    [refused] = recorder.reports[0].refused.values()
    assert reason in refused
    assert {a.client_id for a in recorder.reports[0].assignments} == set(names(2))


def test_stopping_keeps_the_last_complete_round() -> None:
    stop = threading.Event()

    class Stop(Callback):
        def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> None:
            if report.round == 2:
                stop.set()

    strategy = FedAvg(2)
    grid = FakeGrid({n: client(n) for n in names(2)})
    state = strategy.run(grid, initial(), num_rounds=9, callbacks=[Stop()], stop=stop)
    assert state.round == 2


def test_a_callback_may_end_the_federation() -> None:
    class Enough(Callback):
        def after_round(self, strategy: ModalityStrategy, report: RoundReport) -> bool:
            return report.round == 2

    grid = FakeGrid({n: client(n) for n in names(2)})
    state = FedAvg(2).run(grid, initial(), num_rounds=9, callbacks=[Enough()])
    assert state.round == 2


def test_nobody_is_told_to_train_what_it_lacks() -> None:
    held = {"k0": ("a",), "k1": ("b",), "k2": ("a", "b"), "k3": ("a", "b"), "k4": ("b",)}
    grid = FakeGrid({n: client(n, m) for n, m in held.items()})
    _, recorder = federate(BMSFed(3, threshold=1.0), grid, rounds=6)
    for report in recorder.reports:
        assert len(report.assignments) == 3
        assert not report.failures
        for a in report.assignments:
            assert set(a.modalities) <= set(held[a.client_id])


def test_bytes_are_those_of_the_payload() -> None:
    grid = FakeGrid({n: client(n) for n in names(2)})
    _, recorder = federate(FedAvg(2), grid, rounds=1)
    [report] = recorder.reports
    model_bytes = sum(v.nbytes for v in initial().values())
    for entry in report.clients:
        assert model_bytes <= entry.bytes_down <= model_bytes + 2000
        assert model_bytes <= entry.bytes_up <= model_bytes + 2500
