"""One client of several whose answer is out of all scale: no poison, no end, no change for honest.

Clients train towards a goal of their own near a common one, so that what a federation should
arrive at is known without it.
"""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from strategies import (
    BMSFed,
    ClientInfo,
    FedAvg,
    FedMSplit,
    LocalTraining,
    ModalityStrategy,
    ServerState,
    Update,
    aggregate_parts,
)
from strategies.protocol import pack_enrolment, pack_update, unpack_task
from strategies.randomness import generator
from strategies.robust import Krum, Median, TrimmedMean
from strategies.testing import FakeGrid
from tests.strategies.test_federation import Recorder, initial

GOAL = 3.0
Spoil = Callable[[Update, dict[str, np.ndarray]], None]


def honest(update: Update, sent: dict[str, np.ndarray]) -> None:
    """Leave an answer as it is."""


def scaled(factor: float) -> Spoil:
    def spoil(update: Update, sent: dict[str, np.ndarray]) -> None:
        update.arrays = {
            n: (sent[n] + factor * (v - sent[n])).astype(v.dtype) for n, v in update.arrays.items()
        }

    return spoil


def client(name: str, samples: int = 10, spoil: Spoil = honest) -> Callable[[Message], RecordDict]:
    """A client that goes half of the way to its goal, which is 3 and some noise."""
    info = ClientInfo(name, ("a", "b"), num_samples=samples)

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query.enrol":
            return pack_enrolment(info, "1")
        task = unpack_task(message.content)
        update = Update(name, task.orders.modalities, samples)
        if asked := task.orders.signature:
            rng, size = generator(0, name, "vectors"), asked.sketch_dim
            vectors = ["multi", *(f"enhance.{m}" for m in update.modalities)]
            update.signatures = {n: rng.normal(size=size).astype(np.float32) for n in vectors}
        if len(update.modalities) > 1:
            update.ratios = {"a": 1.0, "b": 1.5}
        if message.metadata.message_type == "train":
            for n, v in task.arrays.items():
                goal = GOAL + generator(0, name, n).normal(0, 0.3, v.shape)
                update.arrays[n] = (v + 0.5 * (goal - v)).astype(v.dtype)
        spoil(update, task.arrays)
        return pack_update(update)

    return answer


def federate(
    strategy: ModalityStrategy,
    bad: dict[str, Spoil] | None = None,
    rounds: int = 6,
    samples: tuple[int, ...] = (10, 11, 12, 13, 14),
    start: ServerState | None = None,
) -> tuple[ServerState, Recorder]:
    names = [f"k{i}" for i in range(len(samples))]
    grid = FakeGrid(
        {n: client(n, s, (bad or {}).get(n, honest)) for n, s in zip(names, samples, strict=True)}
    )
    recorder = Recorder()
    state = strategy.run(
        grid,
        start or initial(),
        num_rounds=rounds,
        callbacks=[recorder],
        min_clients=len(samples),
        connect_timeout=600,
    )
    return state, recorder


def furthest(state: ServerState) -> float:
    """How far the model is from the common goal at most."""
    return max(float(np.abs(v - GOAL).max()) for v in state.arrays.values())


@pytest.mark.parametrize("factor", [100.0, 1e6, 1e30])
@pytest.mark.parametrize("build", [lambda: FedAvg(5), lambda: BMSFed(5), lambda: FedMSplit(5)])
def test_a_scaled_update_neither_poisons_the_model_nor_ends_the_run(
    build: Callable[[], ModalityStrategy], factor: float
) -> None:
    clean, _ = federate(build())
    state, recorder = federate(build(), {"k2": scaled(factor)})
    assert state.round == 6
    assert furthest(state) < furthest(clean) + 0.5
    for report in recorder.reports:
        entries = {c.client_id: c for c in report.clients if c.phase == "train"}
        assert [k for k, c in entries.items() if c.note] == ["k2"]
        assert all(c.status == "ok" for c in entries.values())
        assert entries["k2"].update_norm > 50 * entries["k1"].update_norm
        assert "times the usual; scaled down to that" in entries["k2"].note


def test_the_first_update_of_a_single_client_is_held_against_the_weights_themselves() -> None:
    state, recorder = federate(FedAvg(1), {f"k{i}": scaled(1e6) for i in range(5)}, rounds=1)
    [report] = recorder.reports
    [entry] = [c for c in report.clients if c.phase == "train"]
    assert "'encoders.a' by" in entry.note
    sent = initial()
    for name in ("encoders.a.w", "encoders.b.w"):
        moved = np.linalg.norm(state.arrays[name] - sent[name])
        np.testing.assert_allclose(moved, np.linalg.norm(sent[name]), rtol=1e-5)


def test_what_is_scaled_down_has_the_median_norm_and_its_own_direction() -> None:
    state, _ = federate(FedAvg(5), {"k4": scaled(1e6)}, rounds=1)
    sent = initial()
    found, total = {}, 0
    for i in range(5):
        arrays = unpacked(f"k{i}")
        change = {n: arrays[n].astype(np.float64) - sent[n] for n in sent}
        found[f"k{i}"] = change
        total += 10 + i
    blocks = {n: n.split(".")[1] if n.startswith("encoders") else "head" for n in sent}
    for block in set(blocks.values()):
        names = [n for n in sent if blocks[n] == block]
        norm = {k: np.sqrt(sum((c[n] ** 2).sum() for n in names)) for k, c in found.items()}
        limit = np.median([norm["k0"], norm["k1"], norm["k2"], norm["k3"], 1e6 * norm["k4"]])
        for n in names:
            mean = sum((10 + i) / total * found[f"k{i}"][n] for i in range(4))
            mean = mean + 14 / total * found["k4"][n] * (limit / norm["k4"])
            np.testing.assert_allclose(state.arrays[n], sent[n] + mean, atol=1e-4)


def unpacked(name: str) -> dict[str, np.ndarray]:
    """What an honest client answers to the first model."""
    return {
        n: (v + 0.5 * (GOAL + generator(0, name, n).normal(0, 0.3, v.shape) - v)).astype(v.dtype)
        for n, v in initial().items()
    }


def test_one_or_two_trainers_are_held_against_the_rounds_before() -> None:
    late: list[int] = []

    def after_three(update: Update, sent: dict[str, np.ndarray]) -> None:
        if update.arrays:
            late.append(1)
        if len(late) > 4:
            scaled(1e6)(update, sent)

    state, recorder = federate(FedAvg(2), {"k0": after_three}, rounds=8, samples=(10, 10))
    noted = [[c.client_id for c in r.clients if c.note] for r in recorder.reports]
    assert noted == [[]] * 4 + [["k0"]] * 4
    assert furthest(state) < 1
    # What was usual is in the checkpoint: a resumed run holds the next update against it.
    resumed = ServerState.from_bytes(state.to_bytes())
    assert resumed.norms == state.norms != {}
    _, later = federate(FedAvg(1), {"k0": scaled(1e6)}, 9, samples=(10,), start=resumed)
    assert [c.note != "" for c in later.reports[0].clients] == [True]


def test_updates_of_norm_zero_divide_by_nothing_and_are_no_measure() -> None:
    stays: Spoil = lambda update, sent: update.arrays.update(sent) if update.arrays else None  # noqa: E731
    state, recorder = federate(FedAvg(5), dict.fromkeys(("k0", "k1", "k2"), stays), rounds=2)
    entries = {c.client_id: c for c in recorder.reports[0].clients}
    assert entries["k0"].update_norm == 0
    assert entries["k0"].update_cosine is None
    assert [c.note for c in entries.values()] == [""] * 5
    assert all(np.isfinite(v).all() for v in state.arrays.values())


def test_honest_clients_of_very_different_sizes_are_averaged_to_the_last_bit() -> None:
    samples = (1, 7, 100, 2000, 20)
    state, recorder = federate(FedAvg(5), rounds=1, samples=samples)
    plain = aggregate_parts(
        initial(),
        [Update(f"k{i}", ("a", "b"), n, unpacked(f"k{i}")) for i, n in enumerate(samples)],
    )
    assert {n: v.tobytes() for n, v in state.arrays.items()} == {
        n: v.tobytes() for n, v in plain.items()
    }
    whole = [c.weight for c in recorder.reports[0].clients]
    assert whole == pytest.approx(np.array(samples) / sum(samples))


def test_norms_and_cosines_are_those_of_whole_models() -> None:
    state, recorder = federate(FedAvg(5), rounds=1)
    flat = lambda arrays: np.concatenate([v.astype(np.float64).ravel() for v in arrays.values()])  # noqa: E731
    sent = flat(initial())
    moved = flat({n: state.arrays[n] for n in initial()}) - sent
    for entry in recorder.reports[0].clients:
        change = flat(unpacked(entry.client_id)) - sent
        assert entry.update_norm == pytest.approx(np.linalg.norm(change))
        cosine = change @ moved / np.linalg.norm(change) / np.linalg.norm(moved)
        assert entry.update_cosine == pytest.approx(cosine)


def test_a_model_of_ones_own_is_left_alone() -> None:
    state, recorder = federate(LocalTraining(5), {"k2": scaled(1e6)}, rounds=2)
    assert [c.note for r in recorder.reports for c in r.clients] == [""] * 10
    assert np.abs(state.memory["k2"]["head.bias"]).max() > 1e5


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(), Krum()])
def test_a_flipped_update_is_outvoted_by_a_rule_and_not_by_the_mean(rule: object) -> None:
    flipped = {"k1": scaled(-5.0)}
    clean, _ = federate(FedAvg(5))
    mean, recorder = federate(FedAvg(5), flipped)
    assert furthest(mean) > furthest(clean) + 1
    robust, _ = federate(FedAvg(5, aggregation=rule), flipped)
    assert furthest(robust) < furthest(clean) + 0.5
    cosines = {c.client_id: c.update_cosine for c in recorder.reports[0].clients}
    assert [k for k, cosine in cosines.items() if cosine < 0] in (["k1"], ["k0", "k2", "k3", "k4"])


def test_a_negative_variance_is_left_out_by_name() -> None:
    strategy = FedAvg(3)
    start = initial() | {"encoders.a.bn.running_var": np.ones(4, np.float32)}

    def negative(update: Update, sent: dict[str, np.ndarray]) -> None:
        if update.arrays:
            update.arrays["encoders.a.bn.running_var"] = np.full(4, -1, np.float32)

    _, recorder = federate(strategy, {"k0": negative}, 1, (10, 10, 10), ServerState(arrays=start))
    assert recorder.reports[0].failures == {
        "k0": "array 'encoders.a.bn.running_var' holds a negative variance"
    }


@pytest.mark.parametrize("ratio", [1e12, 1000.0])
@pytest.mark.parametrize("rule", [None, Median()])
def test_one_ratio_does_not_turn_the_weak_modality_round(ratio: float, rule: object) -> None:
    def lie(update: Update, sent: dict[str, np.ndarray]) -> None:
        update.ratios = {"a": ratio, "b": 1.0}

    state, recorder = federate(FedAvg(5, aggregation=rule), {"k3": lie}, rounds=2)
    assert [r.weak for r in recorder.reports] == ["b", "b"]
    assert recorder.reports[0].ratios == {"a": 1.0, "b": pytest.approx(1.5, abs=0.2)}
    assert state.ratios["k3"]["a"] == 1000.0
