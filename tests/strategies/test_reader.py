"""What one client says wrongly of itself or answers wrongly leaves out that client alone."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import Code, FitRes, Parameters, Status

from strategies import (
    Arrays,
    BMSFed,
    ClientInfo,
    FedAvg,
    FederationError,
    ModalityStrategy,
    Prototypes,
    Update,
)
from strategies.federation.classic_transport import fit_answer
from strategies.federation.dialects import Dialect, Native, Plain
from strategies.federation.enrolment import unpack_enrolment
from strategies.federation.fleet import Fleet
from strategies.federation.judging import Judge, Sent, warn_of_large
from strategies.federation.transport import GridTransport
from strategies.federation.wire import array_record
from strategies.messages import Assignment, Orders, Task
from strategies.protocol import pack_enrolment
from strategies.ratios import MOST_TIMES
from strategies.testing import FakeGrid
from tests.strategies.test_federation import client, federate, initial, names

SPOILS: dict[str, tuple[Callable[[Update], Any], str]] = {
    "more samples": (lambda u: setattr(u, "num_samples", 10**15), "sample count is above"),
    "some more": (
        lambda u: setattr(u, "num_samples", 999),
        "for 999 samples, but enrolled with 18",
    ),
    "short signatures": (
        lambda u: u.signatures.update({n: np.zeros(3, np.float32) for n in u.signatures}),
        "has shape (3,), expected (4096,)",
    ),
    "double signatures": (
        lambda u: u.signatures.update({n: np.full(4096, 1e300) for n in u.signatures}),
        "is float64, expected float32",
    ),
    "extra ratios": (
        lambda u: u.ratios.update({f"r{i}": 1.0 for i in range(500)}),
        "unexpected imbalance ratio of 'r0' (500 unexpected)",
    ),
    "extra prototypes": (
        lambda u: u.prototypes.update({f"p{i}": u.prototypes["a"] for i in range(1000)}),
        "unexpected prototypes of 'p0'",
    ),
    "float counts": (
        lambda u: u.prototypes.update(
            a=Prototypes(u.prototypes["a"].means, np.ones(2))  # type: ignore[arg-type]
        ),
        "expected floats with int64",
    ),
    "large counts": (
        lambda u: u.prototypes.update(
            a=Prototypes(u.prototypes["a"].means, np.array([2**62, 2**62]))
        ),
        "count more than the client's 18 samples",
    ),
}


@pytest.mark.parametrize("case", SPOILS)
def test_the_first_client_of_all_is_the_one_left_out(case: str) -> None:
    spoil, reason = SPOILS[case]
    handlers = {n: client(n) for n in names(3)}
    handlers["first"] = client("client-!", change=spoil)  # sorts before all others
    state, recorder = federate(BMSFed(4), FakeGrid(handlers), rounds=1)
    assert list(recorder.reports[0].failures) == ["client-!"]
    assert reason in recorder.reports[0].failures["client-!"]
    assert set(state.signatures) == set(names(3))


def test_metrics_that_are_not_finite_are_not_kept() -> None:
    def spoil(update: Update) -> None:
        update.metrics |= {"loss": float("nan"), "steps": 3.0}

    handlers = {n: client(n, change=spoil) for n in names(2)}
    _, recorder = federate(FedAvg(2), FakeGrid(handlers), rounds=1)
    assert [c.metrics for c in recorder.reports[0].clients] == [{"steps": 3.0}] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_samples": float("inf")}, "holds Infinity"),
        ({"num_samples": float("nan")}, "holds NaN"),
        ({"num_samples": 10**400}, "above 1,000,000,000"),
        ({"num_samples": -1}, "negative sample count -1"),
        ({"num_samples": True}, "is a bool"),
        ({"num_samples": 3.5}, "is a float"),
        ({"class_counts": [99]}, "class counts sum to 99"),
        ({"class_counts": {}}, "no list"),
        ({"client_id": "x" * 10_000}, "has 10000 characters"),
        ({"client_id": "a\x1b[2J"}, "cannot be shown"),
        ({"client_id": 3}, "is a int, expected text"),
        ({"modalities": "a"}, "no list"),
    ],
)
def test_an_enrolment_is_read_strictly(change: dict[str, Any], reason: str) -> None:
    content = pack_enrolment(ClientInfo("k", ("a",), 10, (4, 6)), "1")
    header = json.loads(str(content.config_records["config"]["enrolment"])) | change
    told = RecordDict({"config": ConfigRecord({"enrolment": json.dumps(header)})})
    with pytest.raises(ValueError, match=reason):
        unpack_enrolment(told)
    _, recorder = federate(FedAvg(2), FakeGrid({"k": lambda m: told, "c": client("c")}), rounds=1)
    assert reason in next(iter(recorder.reports[0].refused.values()))


def test_deep_json_is_no_enrolment() -> None:
    deep = RecordDict({"config": ConfigRecord({"enrolment": "[" * 100_000})})
    with pytest.raises(ValueError, match="nested too deeply"):
        unpack_enrolment(deep)


def test_where_nobody_answers_with_numbers_the_model_is_blamed() -> None:
    def spoil(update: Update) -> None:
        update.arrays["head.bias"] = np.full(2, np.nan, np.float32)

    with pytest.raises(
        FederationError, match=r"all 2 answers .* the model that was sent, not the clients"
    ):
        federate(FedAvg(2), FakeGrid({n: client(n, change=spoil) for n in names(2)}), rounds=1)
    poisoned = initial() | {"head.bias": np.full(2, np.inf, np.float32)}
    with pytest.raises(FederationError, match=r"'head.bias' of the global model .*round=N"):
        FedAvg(2).run(FakeGrid({n: client(n) for n in names(2)}), poisoned, num_rounds=1)


def test_a_reply_that_flower_cannot_read_is_its_clients_fault_alone() -> None:
    class Wire(GridTransport):
        """Behaves as over a grid of Flower's: one that is not of this machine."""

    fake = FakeGrid({n: client(n) for n in names(3)})

    class Remote:
        """Raises for the second reply, as protobuf does."""

        def __init__(self) -> None:
            self.ids: list[str] = []

        def get_nodes(self) -> Iterable[Any]:
            return fake.get_nodes()

        def get_node_ids(self) -> Iterable[int]:
            return fake.get_node_ids()

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            found = list(fake.push_messages(messages))
            self.ids += found
            return found

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            asked = list(message_ids)
            replies = list(fake.pull_messages(asked))
            if self.ids[1] in asked and replies:
                raise ValueError("Error parsing message")
            return replies + replies  # each twice

    nodes = list(fake.get_node_ids())
    question = ("query.enrol", RecordDict({"config": ConfigRecord({})}))
    transport = Wire(Remote())  # type: ignore[arg-type]
    answers = transport.exchange(dict.fromkeys(nodes, question), group="1", timeout=600)
    assert [answers[n].content is not None for n in nodes] == [True, False, True]
    assert "cannot be read" in answers[nodes[1]].error


def test_a_client_that_enrols_with_far_more_than_the_others_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients = {n: ClientInfo(n, ("a",), size) for n, size in (("k", 10), ("l", 12), ("m", 1300))}
    warn_of_large(clients)
    assert [r.getMessage() for r in caplog.records] == [
        "client 'm' says it has 1300 samples, more than 100 times the median: it counts as 1200 in "
        "averages; leave it out if it cannot have so many"
    ]


def test_classic_bytes_that_are_no_array_are_an_error_of_their_client() -> None:
    result = FitRes(Status(Code.OK, ""), Parameters([b"PK junk"], "numpy.ndarray"), 1, {})
    sent = RecordDict({"arrays": array_record({"w": np.ones(2)})})
    answer = fit_answer(result, sent)
    assert answer.content is None
    assert "unreadable" in answer.error


def test_weights_that_were_not_enrolled_are_bounded_by_the_median() -> None:
    strategy = FedAvg(3)
    strategy.start_from(initial())
    counts = [10, 12, 10**8]
    read: list[Update | str] = [Update(f"k{i}", ("a",), n) for i, n in enumerate(counts)]

    def sent(dialect: Dialect) -> list[Sent]:
        task = Task(Orders("train", ("a",)))
        told = [Assignment(f"k{i}", ("a",)) for i in range(3)]
        return [Sent(i, a, task, dialect, ("train", RecordDict())) for i, a in enumerate(told)]

    judge = Judge(strategy, Fleet(strategy.state.clients), warns=False)
    judge._bound_samples(sent(Native()), read)
    assert [u.num_samples for u in read if isinstance(u, Update)] == counts
    judge._bound_samples(sent(Plain.__new__(Plain)), read)
    bounded = [10, 12, 12 * MOST_TIMES]
    assert [u.num_samples for u in read if isinstance(u, Update)] == bounded


@pytest.mark.parametrize("build", [lambda: FedAvg(3), lambda: BMSFed(3, sketch_dim=8)])
def test_a_client_that_enrols_with_a_billion_samples_is_not_the_model(
    build: Callable[[], ModalityStrategy],
) -> None:
    def with_samples(count: int) -> Arrays:
        handlers = {n: client(n) for n in names(3)}

        def boasting(message: Message) -> RecordDict:
            if message.metadata.message_type == "query.enrol":
                info = ClientInfo("client-2", ("a", "b"), count, (5, 5))
                return pack_enrolment(info, "1")
            return changed(message)

        changed = client("client-2", change=lambda u: setattr(u, "num_samples", count))
        state, recorder = federate(build(), FakeGrid(handlers | {"client-2": boasting}), rounds=1)
        assert recorder.reports[0].failures == {}
        return state.arrays

    usual = 10 + len("client-0")
    bounded, honest = with_samples(10**9), with_samples(MOST_TIMES * usual)
    assert {n: v.tobytes() for n, v in bounded.items()} == {
        n: v.tobytes() for n, v in honest.items()
    }
