"""Which jobs a worker gets next."""

from __future__ import annotations

import itertools

import pytest
from flwr.app import Message, RecordDict

from bmsfed_app.engine.schedule import Job, Schedule
from bmsfed_app.engine.work import Work
from strategies.testing import FakeGrid

FakeGrid({})  # lets this process make messages
_numbers = itertools.count()


def job(node: int, size: float = 1, kind: str = "train", **about: object) -> Job:
    message = Message(RecordDict(), node, "train")
    message.metadata.__dict__["_message_id"] = f"m{next(_numbers)}"
    return Job(message, Work(kind, size), **about)  # type: ignore[arg-type]


def nodes(jobs: list[Job]) -> list[int]:
    return [j.node for j in jobs]


def order(schedule: Schedule, workers: int = 2) -> list[list[int]]:
    taken = []
    while len(schedule):
        taken.append(nodes(schedule.next(workers, lambda node: True)))
    return taken


def test_the_largest_comes_first_whatever_the_order() -> None:
    schedule = Schedule()
    schedule.add([job(1, 10), job(2, 30), job(3, 20)])
    assert order(schedule) == [[2], [3], [1]]


def test_what_was_measured_decides_between_kinds() -> None:
    """Multi-modal clients of 10 samples take longer than uni-modal ones of 30."""
    schedule = Schedule()
    schedule.learn([job(1, 10, "multi")], 5.0)
    schedule.learn([job(1, 10, "uni")], 1.0)
    schedule.add([job(1, 30, "uni"), job(2, 10, "multi"), job(3, 12, "multi")])
    assert order(schedule) == [[3], [2], [1]]


def test_what_nothing_is_known_of_comes_before_what_is_known() -> None:
    schedule = Schedule()
    schedule.learn([job(1, 10, "uni")], 100.0)
    schedule.add([job(1, 10, "uni"), job(2, 1, "new")])
    assert order(schedule)[0] == [2]


def test_later_measurements_count_more() -> None:
    schedule = Schedule()
    schedule.learn([job(1)], 100.0)  # the first one loaded the data
    for _ in range(20):
        schedule.learn([job(1)], 1.0)
    assert schedule.expected(Work("train")) == pytest.approx(1, rel=0.01)


def test_small_jobs_share_a_call_and_large_ones_do_not() -> None:
    schedule = Schedule()
    schedule.learn([job(1)], 0.01)
    schedule.add(job(n) for n in range(1, 101))
    assert len(schedule.next(2, lambda node: True)) == 10  # a tenth of a second
    schedule.learn([job(1)], 100.0)
    assert len(schedule.next(2, lambda node: True)) == 1


def test_the_last_calls_are_small() -> None:
    schedule = Schedule()
    schedule.learn([job(1)], 1e-6)
    schedule.add(job(n) for n in range(1, 33))
    sizes = [len(taken) for taken in order(schedule)]
    assert sizes[0] == 4
    assert sizes[-1] == 1
    assert sum(sizes) == 32


def test_clients_are_packed_whatever_they_take() -> None:
    schedule = Schedule(pack=4)
    schedule.learn([job(1)], 100.0)
    schedule.add(job(n) for n in range(1, 7))
    assert order(schedule) == [[1, 2, 3, 4], [5, 6]]


def test_a_client_answers_one_message_at_a_time() -> None:
    schedule = Schedule()
    schedule.add([job(1), job(1), job(2)])
    assert nodes(schedule.next(1, lambda node: node != 1)) == [2]
    assert schedule.next(1, lambda node: node != 1) == []
    assert nodes(schedule.next(1, lambda node: True)) == [1]
    assert len(schedule) == 1


def test_batches_and_those_who_must_be_alone_do_not_mix() -> None:
    schedule = Schedule(pack=8)
    first, second = object(), object()
    schedule.add([job(1, batch=first), job(2, batch=first), job(3, batch=second)])
    schedule.add([job(4, batch=first, alone=True), job(5, batch=first, alone=True)])
    assert sorted(map(sorted, order(schedule))) == [[1, 2], [3], [4], [5]]


def test_dropped_jobs_are_gone() -> None:
    schedule = Schedule()
    jobs = [job(1), job(2)]
    schedule.add(jobs)
    schedule.drop([jobs[0].id])
    assert nodes(schedule.all()) == [2]
